"""Charts as SVG text, without a library: bars, distributions and timelines.

Colours come from the page's style sheet by class (`c0` ... `c5`, `wait`, `text`, `grid`), so that
one chart is readable on a light and on a dark page.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from tools.bench.result import Live, Series, Span

WIDTH = 860
_LEFT, _RIGHT = 210, 120
_COLOURS = 6

# Bars of a distribution: enough for its shape, few enough to be seen.
_BARS = 48


def bars(rows: Sequence[tuple[str, Sequence[tuple[str, Series]]]], unit: str) -> str:
    """Horizontal bars in groups: (group, [(bar, its series), ...]); a whisker is the range."""
    most = max((s.max for _, group in rows for _, s in group), default=0.0) or 1.0
    scale = (WIDTH - _LEFT - _RIGHT) / most
    parts, y = [], 4.0
    for title, group in rows:
        parts.append(_text(0, y + 14, title, "strong"))
        y += 22
        for i, (name, series) in enumerate(group):
            end = _LEFT + series.median * scale
            low, high = _LEFT + series.min * scale, _LEFT + series.max * scale
            parts += [
                _text(_LEFT - 8, y + 14, name, anchor="end"),
                f'<rect class="c{i % _COLOURS}" x="{_LEFT}" y="{y:.1f}" height="18" '
                f'width="{max(0.5, end - _LEFT):.1f}"><title>{escape(name)}: '
                f"{series.median:.2f} {escape(unit)}</title></rect>",
                f'<path class="whisker" d="M{low:.1f} {y + 9:.1f}H{high:.1f}'
                f'M{low:.1f} {y + 5:.1f}v8M{high:.1f} {y + 5:.1f}v8"/>',
                _text(max(end, high) + 8, y + 14, f"{series.median:.1f} {unit}"),
            ]
            y += 23
        y += 8
    return _svg(y, parts, "bars")


def distributions(lives: Sequence[Live], title: str) -> str:
    """How the latencies of each rate lie, one panel a rate, all on one logarithmic axis of ms."""
    lows = [d[0] for live in lives for d in live.distribution]
    highs = [d[1] for live in lives for d in live.distribution]
    if not lows:
        return ""
    low, high = math.log10(min(lows)) - 0.02, math.log10(max(highs)) + 0.02
    if high - low < 0.3:  # all alike: an axis of a factor of two about them
        middle = (low + high) / 2
        low, high = middle - 0.15, middle + 0.15
    left, right, tall = 90, 80, 84

    def x(ms: float) -> float:
        return left + (math.log10(ms) - low) / (high - low) * (WIDTH - left - right)

    parts, y = [_text(0, 18, title, "strong")], 30.0
    bottom = y + len(lives) * (tall + 16)
    for tick in _ticks(low, high):
        at = x(tick)
        parts.append(f'<path class="grid" d="M{at:.1f} {y:.1f}V{bottom:.1f}"/>')
        parts.append(_text(at, bottom + 14, f"{tick:g} ms", anchor="middle"))
    for i, live in enumerate(lives):
        counts = [0] * _BARS
        for start, stop, count in live.distribution:
            middle = math.log10(math.sqrt(start * stop))
            counts[min(_BARS - 1, int((middle - low) / (high - low) * _BARS))] += count
        most, width = max(counts), (WIDTH - left - right) / _BARS
        parts.append(_text(left - 10, y + tall / 2 + 4, f"{live.fps:g} fps", anchor="end"))
        for number, count in enumerate(counts):
            if count:
                height = max(1.0, count / most * (tall - 12))
                parts.append(
                    f'<rect class="c{i % _COLOURS}" x="{left + number * width:.1f}" '
                    f'y="{y + tall - height:.1f}" width="{width - 1:.1f}" height="{height:.1f}">'
                    f"<title>{count} of {live.frames} frames</title></rect>"
                )
        for name, anchor, aside in (("p50", "end", -3), ("p99", "start", 3)):
            at = x(max(10**low, min(10**high, live.latency_ms[name])))
            parts.append(f'<path class="mark" d="M{at:.1f} {y + 6:.1f}V{y + tall:.1f}"/>')
            label = f"{name} {live.latency_ms[name]:.1f}"
            parts.append(_text(at + aside, y + 12, label, "small", anchor))
        parts.append(f'<path class="axis" d="M{left} {y + tall:.1f}H{WIDTH - right}"/>')
        y += tall + 16
    return _svg(bottom + 24, parts, "distribution")


def timeline(spans: Sequence[Span]) -> str:
    """Rows of spans over time; a colour is a frame, pale is waiting."""
    rows = list(dict.fromkeys(span.row for span in spans))
    length = max((span.end_ms for span in spans), default=0.0) or 1.0
    left, right, tall = 100, 20, 30
    scale = (WIDTH - left - right) / length
    parts: list[str] = []
    bottom = len(rows) * tall + 6
    step = _round_step(length / 8)
    for number in range(int(length / step) + 1):
        at = left + number * step * scale
        parts.append(f'<path class="grid" d="M{at:.1f} 0V{bottom}"/>')
        parts.append(_text(at, bottom + 14, f"{number * step:g} ms", "small", anchor="middle"))
    for i, row in enumerate(rows):
        parts.append(_text(left - 10, i * tall + 20, row, anchor="end"))
    # Waits for the engine lie within work, so waiting is drawn last, on top.
    for span in sorted(spans, key=lambda s: s.kind == "wait"):
        parts += _span(span, rows.index(span.row) * tall + 4, left, scale, _lane(span, spans))
    return _svg(bottom + 24, parts, "timeline")


def _lane(span: Span, spans: Sequence[Span]) -> tuple[int, int]:
    """Which of how many lines of its row a span takes: frames in flight lie over one another."""
    if span.kind != "flight" or span.frame is None:
        return 0, 1
    most = 1
    for other in spans:
        if other.kind == "flight":
            at = other.begin_ms
            together = [s for s in spans if s.kind == "flight" and s.begin_ms <= at < s.end_ms]
            most = max(most, len(together))
    return span.frame % most, most


def _span(span: Span, y: float, left: float, scale: float, lane: tuple[int, int]) -> Iterator[str]:
    line, lines = lane
    height = 22 / lines
    width = max(0.6, (span.end_ms - span.begin_ms) * scale)
    kind = "wait" if span.kind == "wait" else f"c{(span.frame or 0) % _COLOURS}"
    what = f"frame {span.frame}" if span.frame is not None else "waits"
    yield (
        f'<rect class="{kind}" x="{left + span.begin_ms * scale:.2f}" y="{y + line * height:.1f}" '
        f'width="{width:.2f}" height="{height - (lines > 1):.1f}"><title>{escape(span.row)}: '
        f"{what}, {span.end_ms - span.begin_ms:.2f} ms</title></rect>"
    )


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two exponents, at most nine; few for wide axes."""
    steps = (1, 2, 5) if high - low < 2.5 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [s * 10.0**p for p in powers for s in steps if low <= math.log10(s * 10.0**p) <= high]
    return ticks or [float(f"{10 ** ((low + high) / 2):.3g}")]


def _round_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is at least `least` (above 0)."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(s * power for s in (1, 2, 5, 10) if s * power >= least * 0.999)


def _text(x: float, y: float, text: str, style: str = "text", anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{style}" {place}>{escape(text)}</text>'


def _svg(height: float, parts: Sequence[str], name: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{name}" role="img" '
        f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}">'
        + "".join(parts)
        + "</svg>"
    )
