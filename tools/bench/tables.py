"""A benchmark as tables: on a terminal, and as Markdown to paste."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tools.bench.latency import MOST_MISSED
from tools.bench.result import Result, Row, Series


@dataclass(frozen=True)
class Table:
    """A title, the columns' heads, and rows of as many cells."""

    title: str
    head: list[str]
    rows: list[list[str]]


def tables(result: Result) -> list[Table]:
    """What there is to show; a table without a row is left out."""
    good = [row for row in result.rows if row.rates or row.live or row.peak]
    made = (_rates(good), _cpu(good), _live(good), _peaks(good), _faults(result))
    return [table for table in made if table.rows]


_HEADS = {"engine": "engine only", "synthetic": "synthetic source", "file": "file"}


def _rates(rows: list[Row]) -> Table:
    parts = [p for p in ("engine", "synthetic", "file") if any(p in row.rates for row in rows)]
    pairs = ("synthetic/engine", "file/engine", "file/synthetic")
    ratios = [p for p in pairs if any(p in row.ratios for row in rows)]
    return Table(
        "Throughput, frames/s",
        ["", *(_HEADS[p] for p in parts), *(p.replace("/", " / ") for p in ratios), "limit"],
        [
            [
                row.title,
                *(spread(row.rates.get(p)) for p in parts),
                *(spread(row.ratios.get(p), 2) for p in ratios),
                _limit(row),
            ]
            for row in rows
            if row.rates
        ],
    )


def _cpu(rows: list[Row]) -> Table:
    parts = [p for p in ("engine", "synthetic", "file") if any(p in row.cpu_ms for row in rows)]
    return Table(
        "Processor time, ms a frame (on a shared machine steadier than frames/s)",
        ["", *(_HEADS[p] for p in parts)],
        [[row.title, *(spread(row.cpu_ms.get(p)) for p in parts)] for row in rows if row.cpu_ms],
    )


def _limit(row: Row) -> str:
    found = row.bottleneck.get("file") or row.bottleneck.get("synthetic")
    return str(found["stage"]) if found else "–"


def _live(rows: list[Row]) -> Table:
    percents = ("p50", "p90", "p99", "p99.9", "max")
    return Table(
        "A live source at a fixed rate: latency and jitter in ms",
        ["", "fps", "frames", "missed", *percents, "jitter"],
        [
            [
                row.title,
                f"{live.fps:g}",
                str(live.frames),
                f"{live.missed} ({100 * live.missed / live.frames:.1f}%)",
                *(f"{live.latency_ms[p]:.1f}" for p in percents),
                spread(live.jitter_ms),
            ]
            for row in rows
            for live in row.live
        ],
    )


def _peaks(rows: list[Row]) -> Table:
    return Table(
        f"Peak rate sustained (under {MOST_MISSED:.0%} missed), frames/s",
        ["", "peak"],
        [[row.title, spread(row.peak.fps)] for row in rows if row.peak is not None],
    )


def _faults(result: Result) -> Table:
    rows = [[row.title, row.error] for row in result.rows if row.error is not None]
    return Table("Failed", ["", "why"], rows)


def spread(series: Series | None, digits: int = 1) -> str:
    """Median and range; a dash for nothing."""
    if series is None:
        return "–"
    text = f"{series.median:.{digits}f}"
    if len(series.values) > 1:
        text += f" ({series.min:.{digits}f}..{series.max:.{digits}f})"
    return text


def facts(result: Result) -> list[str]:
    """What the figures are to be read with: the machine, the versions and the settings."""
    machine, how = result.machine, result.settings
    lines = [f"{machine.cpu}, {machine.cores} cores usable, {machine.memory_gb or '?'} GB memory"]
    if machine.gpus:
        lines.append(f"{', '.join(machine.gpus)}, driver {machine.driver or 'unknown'}")
    versions = ", ".join(f"{name} {v}" for name, v in machine.versions.items() if v)
    lines.append(f"{machine.system}; Python {machine.python}; {versions}")
    height, width = how.picture.split("x")
    source = f"{how.source} and " if how.source else ""
    lines.append(
        f"{source}a synthetic source, pictures of {width}x{height}; medians (and ranges) of "
        f"{result.rounds_done} rounds taken in turns, {how.seconds:g} s each after "
        f"{how.warmup_s:g} s of warm-up"
    )
    lines.append(_sharing(result))
    if result.interrupted:
        lines.append(f"Ended early, after {result.rounds_done} of {how.rounds} rounds")
    return lines


def _sharing(result: Result) -> str:
    machine = result.machine
    before, after = machine.load_before, machine.load_after
    text = "load average unknown"
    if before and after:
        text = f"load average {before[0]:.1f} before, {after[0]:.1f} after"
    others = machine.others_cpu_percent
    if others is not None:
        shared = ": trust the ratios, not the figures" if others >= 10 else ""
        text += f"; other programs used {others:.0f}% of the cores{shared}"
    return text


def to_text(result: Result) -> str:
    """For a terminal."""
    parts = []
    for table in tables(result):
        cells = [table.head, *table.rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(table.head))]
        if table.title == "Failed":
            lines = [f"  {name}: {why}" for name, why in table.rows]
        else:
            lines = [_aligned(row, widths) for row in cells]
        parts.append("\n".join([table.title, *lines]))
    parts.append("\n".join(facts(result)))
    return "\n\n".join(parts)


def _aligned(row: list[str], widths: list[int]) -> str:
    first, *others = zip(row, widths, strict=True)
    cells = [f"  {first[0]:<{first[1]}}", *(f"{text:>{width}}" for text, width in others)]
    return "  ".join(cells).rstrip()


def to_markdown(result: Result) -> str:
    """To paste into an issue or a page."""
    return "\n".join(_markdown(result))


def _markdown(result: Result) -> Iterator[str]:
    for table in tables(result):
        yield f"**{table.title}**"
        yield ""
        yield _markdown_row(table.head)
        yield "|---|" + "---:|" * (len(table.head) - 1)
        yield from (_markdown_row(row) for row in table.rows)
        yield ""
    for line in facts(result):
        yield f"- {line}"
    yield f"- streamseg {result.streamseg}, {result.made}"
    yield ""


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
