"""A benchmark as one page that needs nothing else: no script, no font, no request."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from tools.bench import svg
from tools.bench.result import Result
from tools.bench.tables import Table, facts, tables

# Okabe and Ito's colours (jfly.uni-koeln.de/color), which colour-blind people tell apart.
_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --faint: #d9dde2;
  --c0: #0072b2; --c1: #e69f00; --c2: #009e73; --c3: #cc79a7; --c4: #56b4e9; --c5: #d55e00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --paper: #14171b; --faint: #3a4048; --c0: #4aa3dc; --c3: #dd98bd; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--faint);
  white-space: nowrap; }
th:first-child, td:first-child, td.words { text-align: left; }
td.words { white-space: normal; }
svg { max-width: 100%; height: auto; display: block; margin: .6rem 0; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .strong { font-weight: 600; } svg .small { font-size: 10px; }
svg .grid { stroke: var(--faint); fill: none; } svg .axis { stroke: var(--ink); fill: none; }
svg .whisker, svg .mark { stroke: var(--ink); fill: none; }
svg .mark { stroke-dasharray: 3 2; }
svg .wait { fill: var(--paper); stroke: var(--faint); fill-opacity: .75; }
svg .c0 { fill: var(--c0); } svg .c1 { fill: var(--c1); } svg .c2 { fill: var(--c2); }
svg .c3 { fill: var(--c3); } svg .c4 { fill: var(--c4); } svg .c5 { fill: var(--c5); }
.note { opacity: .8; }
"""

_NAMES = {"engine": "engine only", "synthetic": "synthetic source", "file": "file"}


def to_html(result: Result) -> str:
    """The page."""
    return "\n".join(_page(result)) + "\n"


def _page(result: Result) -> Iterator[str]:
    yield "<!DOCTYPE html>"
    yield '<html lang="en"><head><meta charset="utf-8"/>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
    yield f"<title>streamseg bench, {escape(result.made)}</title>"
    yield f"<style>{_STYLE}</style></head><body>"
    yield "<h1>streamseg bench</h1>"
    yield "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in facts(result))
    yield f"<li>streamseg {escape(result.streamseg)}, {escape(result.made)}</li></ul>"
    rates = [(row.title, [(_NAMES[p], s) for p, s in row.rates.items()]) for row in result.rows]
    if any(group for _, group in rates):
        yield "<h2>Throughput</h2>"
        yield svg.bars([(title, group) for title, group in rates if group], "fps")
        yield '<p class="note">Bars are medians, whiskers the range of the rounds.</p>'
    if any(row.live for row in result.rows):
        yield "<h2>Latency at fixed rates</h2>"
        for row in result.rows:
            if row.live:
                yield svg.distributions(row.live, row.title)
        yield (
            '<p class="note">From when a frame was due until the caller had it; missed frames have '
            "no latency and are in the table.</p>"
        )
    if result.timeline is not None and result.timeline.spans:
        yield f"<h2>Stages over time: {escape(result.timeline.title)}</h2>"
        yield svg.timeline(result.timeline.spans)
        yield (
            '<p class="note">A colour is a frame, pale is waiting; network: what is under way in '
            "the engine. From a traced run beside the measurements.</p>"
        )
    for table in tables(result):
        yield from _table(table)
    yield "</body></html>"


def _table(table: Table) -> Iterator[str]:
    yield f'<h2>{escape(table.title)}</h2><div class="wide"><table>'
    yield "<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in table.head) + "</tr>"
    words = ' class="words"' if table.title == "Failed" else ""
    for row in table.rows:
        yield "<tr>" + "".join(f"<td{words}>{escape(cell)}</td>" for cell in row) + "</tr>"
    yield "</table></div>"
