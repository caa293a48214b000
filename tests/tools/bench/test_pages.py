"""JSON, Markdown and HTML of a result: complete, well-formed, and good without a network."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pydantic import BaseModel

from tests.tools.bench.conftest import make_live, make_result, make_row
from tools.bench import result as results
from tools.bench import svg
from tools.bench.html import to_html
from tools.bench.result import Result, Series, Span
from tools.bench.tables import to_markdown, to_text

pytestmark = pytest.mark.timeout(30)
DOCS = Path(__file__).parents[3] / "docs" / "bench.md"
SVG = "{http://www.w3.org/2000/svg}"
# HTML's elements without an end.
VOID = {"meta", "br", "img", "link"}


class Tags(HTMLParser):
    """Every tag opens and closes in its place."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.attributes = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> without a start"
        assert self.open.pop() == tag


def check_page(text):
    tags = Tags()
    tags.feed(text)
    tags.close()
    assert not tags.open
    assert not {"script", "link", "img", "iframe"} & set(tags.seen)
    assert not [a for a in tags.attributes if a[1] in ("src", "href", "xlink:href")]
    links = [u for u in re.findall(r"(?:https?:)?//[\w./]+", text) if "w3.org/2000/svg" not in u]
    assert not links
    assert "url(" not in text
    assert "@import" not in text
    charts = [ElementTree.fromstring(chart) for chart in re.findall(r"<svg.*?</svg>", text, re.S)]
    return tags, charts


def test_the_page_is_well_formed_and_asks_for_nothing():
    tags, charts = check_page(to_html(make_result(make_row(), make_row("b", error="it <failed>"))))
    assert [chart.get("class") for chart in charts] == [
        "bars", "distribution", "distribution", "timeline",
    ]  # fmt: skip
    assert tags.seen.count("table") == 5
    assert "A &lt;fast&gt; &amp; cheap CPU" in to_html(make_result())


def test_a_result_without_figures_is_a_page_too():
    bad = make_row(rates={}, ratios={}, live=[], peak=None, error="no such engine")
    text = to_html(make_result(bad, timeline=None))
    _, charts = check_page(text)
    assert not charts
    assert "no such engine" in text


def boxes(chart):
    """(class, x, y, width, height) of every rectangle."""
    rows = list(chart.iter(f"{SVG}rect"))
    return [
        (r.get("class"), *(float(r.get(k)) for k in ("x", "y", "width", "height"))) for r in rows
    ]


def inside(chart):
    width, height = (float(v) for v in chart.get("viewBox").split()[2:])
    for _, x, y, w, h in boxes(chart):
        assert -0.01 <= x <= x + w <= width + 0.01
        assert -0.01 <= y <= y + h <= height + 0.01


def test_bars_are_as_long_as_their_medians():
    chart = ElementTree.fromstring(
        svg.bars([("a", [("x", Series.of([10])), ("y", Series.of([40]))])], "fps")
    )
    first, second = (box[3] for box in boxes(chart))
    assert second == pytest.approx(4 * first, rel=0.01)
    inside(chart)


def test_a_distribution_holds_every_bucket_in_its_place():
    live = make_live()
    chart = ElementTree.fromstring(svg.distributions([live, make_live(60.0)], "voc"))
    inside(chart)
    found = boxes(chart)
    assert len(found) == 6
    tallest = max(found[:3], key=lambda box: box[4])
    assert tallest == found[1], "150 of the frames lie in the second bucket"
    assert found[0][1] < found[1][1] < found[2][1]


def test_equal_latencies_still_have_an_axis():
    live = make_live().model_copy(update={"distribution": [(20.0, 20.2, 5)]})
    live.latency_ms = dict.fromkeys(live.latency_ms, 20.1)
    inside(ElementTree.fromstring(svg.distributions([live], "voc")))


def test_the_timeline_has_a_row_a_stage_and_no_two_flights_on_one_line():
    spans = [
        Span(row="infer", kind="work", frame=0, begin_ms=0, end_ms=10),
        *(
            Span(row="network", kind="flight", frame=i, begin_ms=3 * i, end_ms=3 * i + 8)
            for i in range(6)
        ),
        Span(row="infer", kind="wait", begin_ms=10, end_ms=20),
    ]
    chart = ElementTree.fromstring(svg.timeline(spans))
    inside(chart)
    flights = [b for b in boxes(chart) if b[0] != "wait" and b[2] > 30]
    assert len(flights) == 6
    for i, one in enumerate(flights):
        for other in flights[i + 1 :]:
            apart = one[1] + one[3] <= other[1] + 0.01 or abs(one[2] - other[2]) >= one[4]
            assert apart, "one would hide the other"
    wait = next(b for b in boxes(chart) if b[0] == "wait")
    work = next(b for b in boxes(chart) if b[0] == "c0" and b[2] < 30)
    assert wait[1] == pytest.approx(work[1] + work[3], abs=0.1)


def test_json_is_what_was_written_and_every_reader_takes_it():
    before = make_result()
    text = before.to_json()
    data = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert data["schema"] == 1
    assert Result.model_validate(data) == before


def keys_of(model, seen):
    for name, info in model.model_fields.items():
        seen.add(info.alias or name)
        for inner in re.findall(r"tools\.bench\.result\.(\w+)", str(info.annotation)):
            keys_of(getattr(results, inner), seen)
    return seen


def test_docs_explain_every_key():
    assert issubclass(Result, BaseModel)
    keys = keys_of(Result, set())
    assert {"schema", "distribution", "sustained", "begin_ms", "others_cpu_percent"} <= keys
    text = DOCS.read_text(encoding="utf-8")
    missing = [key for key in sorted(keys) if f"`{key}`" not in text]
    assert not missing


def test_tables_have_median_and_range():
    text = to_text(make_result())
    assert "41.0 (40.0..42.0)" in text
    assert "0.95 (0.94..0.96)" in text
    assert "3 (1.1%)" in text
    assert "36.0 (35.0..37.0)" in text
    assert "trust the ratios" not in text
    assert "trust the ratios" in to_text(make_result(others=50.0))


def test_markdown_tables_are_rectangles():
    text = to_markdown(make_result(make_row(), make_row("a|b", error="x")))
    blocks = [b.splitlines() for b in text.split("\n\n") if b.startswith("|")]
    assert len(blocks) == 5
    for lines in blocks:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
        assert len(widths) == 1
        assert len(lines) >= 3
