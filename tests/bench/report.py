"""docs/benchmarks.md: the tables, and which of the targets were reached. Computed, never typed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

Results = dict[str, dict[str, float]]
LIMIT, LIMIT_TLS, OURS, TLS, DEVPI = "limit", "limit, TLS", "ours", "ours, TLS", "devpi"
DIRECT = "PyPI itself"
CACHED = ("page of 500 versions", "1 kB file")
INSTALLERS = ("uv pip install", "pip install")
LARGEST_COLD = "page of pydantic-core, cold"
LEFT, REFUSED = "times that it left the upstream", "clients that got an error"
OTHERS = ("by hand", "by hand, cached", DEVPI)
PAGES = ("small page", "500 versions", "JSON page", "root")


@dataclass
class Size:
    """All that was measured with so many small files. Rates a second, times in seconds, memory in MiB, CPU in microseconds."""

    files: int
    rates: Results
    cpu: Results
    speed: Results
    clients: Results
    uploads: dict[str, float]
    burst: Results
    memory: dict[str, float]
    index_seconds: dict[str, float]
    notes: list[str] = field(default_factory=list)


@dataclass
class Public:
    """All that was measured with public packages: seconds, requests a second, the crowd's figures by row, MiB."""

    packages: int
    seconds: Results
    rates: Results
    crowd: Results
    memory: dict[str, float]


def number(value: float | None) -> str:
    """Three significant digits; a dash for what was not measured."""
    if value is None:
        return "–"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *(list(row) for row in rows)]
    lines.insert(1, ["---", *["---:"] * (len(lines[0]) - 1)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def results_table(results: Results, first: str, relative_to: str = "") -> str:
    """A row for each kind of work; in brackets the ratio to the limit."""
    stacks = list(dict.fromkeys(stack for row in results.values() for stack in row))

    def cell(row: dict[str, float], stack: str) -> str:
        value, limit = row.get(stack), row.get(relative_to)
        ratio = f" ({number(value / limit)})" if value is not None and limit and stack != relative_to else ""
        return number(value) + ratio

    return table([first, *stacks], ([name, *(cell(row, stack) for stack in stacks)] for name, row in results.items()))


@dataclass(frozen=True)
class Target:
    """What was wanted, and what was measured; None where it could not be."""

    what: str
    wanted: float
    measured: float | None
    at_most: bool = False

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "**not measured**"
        reached = self.measured <= self.wanted if self.at_most else self.measured >= self.wanted
        return "reached" if reached else "**missed**"

    def row(self) -> list[str]:
        return [self.what, f"{'≤' if self.at_most else '≥'} {number(self.wanted)}", number(self.measured), self.verdict]


def ratio(value: float | None, other: float | None) -> float | None:
    return value / other if value is not None and other else None


def lowest(values: Iterable[float | None]) -> float | None:
    """None if one of them is: a missing measurement must not be hidden by the others."""
    found = list(values)
    return None if None in found or not found else min(value for value in found if value is not None)


def targets(sizes: list[Size]) -> list[Target]:
    """In the order of the issue. Ours is without TLS, as the limit is, unless it says so."""
    found = []
    for size in sizes:
        at = f"{size.files:,} files"
        for name, limit in ((OURS, LIMIT), (TLS, LIMIT_TLS), (TLS, LIMIT)):
            for row, wanted in (("small page", 0.8), ("1 kB file", 0.8), ("500 versions", 0.8), ("100 MB file", 0.95)):
                measured = (size.rates | size.speed).get(row, {})
                value = ratio(measured.get(name), measured.get(limit))
                found.append(Target(f"{row}, {name} against {limit}, {at}", wanted, value))
        for other in OTHERS:
            value = lowest(ratio(size.rates.get(p, {}).get(OURS), size.rates.get(p, {}).get(other)) for p in PAGES[:2])
            found.append(Target(f"pages, times {other}, {at}", 40, value))
    if len(sizes) > 1:
        few, many = sizes[0], sizes[-1]
        value = lowest(ratio(many.rates.get(p, {}).get(OURS), few.rates.get(p, {}).get(OURS)) for p in PAGES[:3])
        found.append(Target(f"pages at {many.files:,} files against {few.files:,}", 0.9, value))
        found.append(
            Target(
                f"upload at {many.files:,} files against {few.files:,}",
                1.3,
                ratio(many.uploads.get(OURS), few.uploads.get(OURS)),
                at_most=True,
            )
        )
    last = sizes[-1]
    for other in ("by hand", DEVPI):
        value = ratio(last.uploads.get(other), last.uploads.get(OURS))
        found.append(Target(f"uploads, times {other}, {last.files:,} files", 10, value))
    for size in sizes:
        for name in (OURS, TLS):
            result = size.burst.get(name, {})
            found.append(Target(f"burst: errors, {name}, {size.files:,} files", 0, result.get("errors"), at_most=True))
            found.append(
                Target(f"burst: p95 in seconds, {name}, {size.files:,} files", 1, result.get("p95"), at_most=True)
            )
        memory = lowest([size.memory.get(OURS)])
        found.append(Target(f"memory at rest in MiB, whole stack, {size.files:,} files", 150, memory, at_most=True))
    return found


def public_targets(public: Public) -> list[Target]:
    """Another server that could not do the work at all is a dash in the table, and no competitor."""
    found = []
    for kind in CACHED:
        private, cached = (public.rates.get(f"{kind}, {whose}", {}).get(OURS) for whose in ("private", "public"))
        found.append(Target(f"{kind}, public and cached against private", 0.95, ratio(cached, private)))
    for tool in INSTALLERS:
        row = f"{tool}, {public.packages} packages, "
        cold, warm = (public.seconds.get(f"{row}{state}", {}) for state in ("cold", "warm"))
        value = ratio(cold.get(OURS), cold.get(DIRECT))
        found.append(Target(f"{row}cold, against {DIRECT}", 1.2, value, at_most=True))
        best = min((seconds for name, seconds in warm.items() if name not in (OURS, DIRECT)), default=None)
        found.append(Target(f"{row}warm, against the best of the others", 1, ratio(warm.get(OURS), best), at_most=True))
    found.append(Target(f"{LARGEST_COLD}, seconds", 1, public.seconds.get(LARGEST_COLD, {}).get(OURS), at_most=True))
    for row, wanted in ((LEFT, 1), (REFUSED, 0)):
        found.append(Target(f"the crowd: {row}", wanted, public.crowd.get(row, {}).get(OURS), at_most=True))
    return found


def public_parts(public: Public) -> list[str]:
    draw: list[tuple[str, Results]] = [
        ("Seconds", public.seconds),
        ("Requests a second of what is cached", public.rates),
        ("100 clients at once for one large file that is not cached", public.crowd),
        ("MiB of memory afterwards (PSS)", {"memory": public.memory}),
    ]
    parts = ["## Public packages"]
    for title, results in draw:
        parts += [f"### {title}", results_table(results, "work")]
    return parts


def render(sizes: list[Size], facts: dict[str, str], introduction: str, public: Public | None = None) -> str:
    """The whole document, or what there is of it."""
    wanted = (targets(sizes) if sizes else []) + (public_targets(public) if public else [])
    missed = [target for target in wanted if target.verdict != "reached"]
    parts = ["# Benchmarks", introduction, table(["", "this run"], ([key, value] for key, value in facts.items()))]
    parts += ["## Targets", f"{len(wanted) - len(missed)} of {len(wanted)} reached."]
    parts += [table(["target", "wanted", "measured", ""], (target.row() for target in wanted))]
    draw: list[tuple[str, Callable[[Size], Results], str, str]] = [
        ("Requests a second (in brackets: against the limit)", lambda size: size.rates, "work", LIMIT),
        ("Microseconds of the server's CPU for each request", lambda size: size.cpu, "work", ""),
        ("Megabytes a second", lambda size: size.speed, "work", LIMIT),
        ("Seconds of clients with cold caches", lambda size: size.clients, "work", ""),
        ("Seconds for 200 uploads, 4 at a time", lambda size: {"200 uploads": size.uploads}, "work", ""),
        ("510 clients at once: seconds, and those that got an error", lambda size: transposed(size.burst), "", ""),
        ("MiB of memory at rest (PSS)", lambda size: {"memory": size.memory}, "", ""),
        ("Seconds to index what was put into the directory", lambda size: {"rebuild": size.index_seconds}, "", ""),
    ]
    for size in sizes:
        parts.append(f"## {size.files:,} files")
        for title, results, first, relative in draw:
            parts += [f"### {title}", results_table(results(size), first, relative)]
        parts += [f"- {note}" for note in size.notes]
    if public:
        parts += public_parts(public)
    return "\n\n".join(parts) + "\n"


def transposed(results: Results) -> Results:
    rows: Results = {}
    for stack, values in results.items():
        for row, value in values.items():
            rows.setdefault(row, {})[stack] = value
    return rows
