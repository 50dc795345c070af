"""`make bench`: how fast the index is, side by side with other ways of having one, on hosts of the lab.

BENCH_FILES="1000 30000" sizes of the index, BENCH_ROUNDS=3 interleaved rounds, BENCH_SECONDS=2 of load for each rate.
"""
