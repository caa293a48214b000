"""Two benchmarks side by side: what changed by more than noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tools.bench.result import Result, Row, Series

Verdict = Literal["better", "worse", "same", "unclear"]

LEAST_ROUNDS = 3
"""With fewer the range says nothing of the spread, and no verdict is given."""

LEAST_CHANGE = 0.01
"""A smaller change of the median is none: latencies are kept in buckets 1% wide."""

LEAST_POINTS = 0.5
"""For shares in percent, which may be 0: a smaller change, in points, is none."""

RULE = (
    "better or worse: the medians differ by more than half of A's range plus half of B's, and by "
    f"more than {LEAST_CHANGE:.0%} (missed frames: {LEAST_POINTS} points); unclear: under "
    f"{LEAST_ROUNDS} rounds"
)


@dataclass(frozen=True)
class Change:
    """One figure in both files."""

    row: str
    name: str
    before: Series
    after: Series
    points: bool
    """Whether the figure is a share in percent, whose change is in points."""
    verdict: Verdict

    @property
    def percent(self) -> float:
        """How much more there is, in percent of before; of a share, in points."""
        a, b = self.before.median, self.after.median
        if self.points:
            return b - a
        return 100 * (b - a) / a if a else 0.0


@dataclass(frozen=True)
class Comparison:
    """All that two files have in common, and what they have not."""

    changes: list[Change]
    only_before: list[str]
    only_after: list[str]
    notes: list[str]
    """What makes the two hard to compare."""

    def regressions(self, percent: float) -> list[Change]:
        """What is worse by more than so many percent (of shares: points)."""
        worse = [change for change in self.changes if change.verdict == "worse"]
        return [change for change in worse if abs(change.percent) > percent]


def judge(before: Series, after: Series, more_is_better: bool, points: bool = False) -> Verdict:
    """What RULE says of two figures."""
    if min(len(before.values), len(after.values)) < LEAST_ROUNDS:
        return "unclear"
    change = after.median - before.median
    noise = (before.max - before.min) / 2 + (after.max - after.min) / 2
    least = LEAST_POINTS if points else LEAST_CHANGE * abs(before.median)
    if abs(change) <= max(noise, least):
        return "same"
    return "better" if (change > 0) == more_is_better else "worse"


def compare(before: Result, after: Result) -> Comparison:
    """Rows are matched by what they measured: model, size, batch, engine and precision."""
    a, b = _by_title(before.rows), _by_title(after.rows)
    changes = []
    for title in [title for title in a if title in b]:
        new = {figure.name: figure.series for figure in _figures(b[title])}
        for figure in _figures(a[title]):
            if (now := new.get(figure.name)) is not None:
                verdict = judge(figure.series, now, figure.more_is_better, figure.points)
                change = Change(title, figure.name, figure.series, now, figure.points, verdict)
                changes.append(change)
    return Comparison(
        changes,
        [title for title in a if title not in b],
        [title for title in b if title not in a],
        list(_differences(before, after)),
    )


def _by_title(rows: list[Row]) -> dict[str, Row]:
    """Rows that measured something; of two alike (auto chose what was asked for too) each."""
    seen: Counter[str] = Counter()
    named = {}
    for row in rows:
        if row.rates or row.live or row.peak:
            seen[row.title] += 1
            again = f" ({seen[row.title]})" if seen[row.title] > 1 else ""
            named[row.title + again] = row
    return named


@dataclass(frozen=True)
class _Figure:
    name: str
    series: Series
    more_is_better: bool = True
    points: bool = False


def _figures(row: Row) -> Iterator[_Figure]:
    """All that a row is compared by."""
    for part, series in row.rates.items():
        yield _Figure(f"{part} fps", series)
    for part, series in row.cpu_ms.items():
        yield _Figure(f"{part} CPU ms a frame", series, False)
    for pair, series in row.ratios.items():
        yield _Figure(pair, series)
    if row.peak is not None:
        yield _Figure("peak fps", row.peak.fps)
    for live in row.live:
        at = f"at {live.fps:g} fps"
        yield _Figure(f"{at}: p50 ms", live.p50_ms, False)
        yield _Figure(f"{at}: p99 ms", live.p99_ms, False)
        yield _Figure(f"{at}: jitter ms", live.jitter_ms, False)
        yield _Figure(f"{at}: missed %", live.missed_percent, False, points=True)


def _differences(before: Result, after: Result) -> Iterator[str]:
    for name in ("cpu", "cores", "gpus", "driver"):
        a, b = getattr(before.machine, name), getattr(after.machine, name)
        if a != b:
            yield f"the machines differ: {name} {a or 'none'} and {b or 'none'}"
    for name in ("source", "picture", "seconds", "warmup_s"):
        a, b = getattr(before.settings, name), getattr(after.settings, name)
        if a != b:
            yield f"they were measured differently: {name} {a} and {b}"
    libraries = dict.fromkeys([*before.machine.versions, *after.machine.versions])
    for name in libraries:
        a, b = before.machine.versions.get(name), after.machine.versions.get(name)
        if a != b:
            yield f"{name} {a or 'none'} became {b or 'none'}"
    for which, result in (("A", before), ("B", after)):
        others = result.machine.others_cpu_percent
        if others is not None and others >= 10:
            yield f"while {which} was measured, other programs used {others:.0f}% of the cores"
        if result.interrupted:
            yield f"{which} ended early"


def to_text(found: Comparison) -> str:
    """For a terminal: changes first, then what cannot be told, and how many are the same."""
    lines: list[str] = []
    told = [c for c in found.changes if c.verdict in ("better", "worse")]
    unclear = [c for c in found.changes if c.verdict == "unclear"]
    for change in [*told, *unclear]:
        a, b = change.before, change.after
        unit = " points" if change.points else "%"
        lines.append(
            f"{change.verdict:8}{change.row}: {change.name} {a.median:.4g} "
            f"({a.min:.4g}..{a.max:.4g}) -> {b.median:.4g} ({b.min:.4g}..{b.max:.4g}), "
            f"{change.percent:+.1f}{unit}"
        )
    counts = Counter(change.verdict for change in found.changes)
    lines.append(", ".join(f"{counts[v]} {v}" for v in ("better", "worse", "same", "unclear")))
    lines += [f"only in A: {title}" for title in found.only_before]
    lines += [f"only in B: {title}" for title in found.only_after]
    lines += [f"note: {note}" for note in found.notes]
    lines.append(RULE)
    return "\n".join(lines)
