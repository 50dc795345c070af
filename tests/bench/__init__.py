"""`make bench`: how fast the index is, side by side with other ways of having one, on hosts of the lab.

`python -m bench --only public` or `--only private` is a part of it. --report FILE writes elsewhere than to docs/benchmarks.md.

BENCH_FILES="1000 30000" sizes of the index, BENCH_ROUNDS=3 interleaved rounds, BENCH_SECONDS=2 of load for each rate,
BENCH_BIG=100 megabytes for the crowd, BENCH_WANTED=30 packages asked for, BENCH_KEEP=1 leaves the hosts up.
"""
