"""What is called a change, and what the program answers to two files."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tools.bench.conftest import make_live, make_result, make_row
from tools.bench.compare import LEAST_CHANGE, compare, judge, to_text
from tools.bench.result import Peak, Series

pytestmark = pytest.mark.timeout(60)

values = st.lists(st.floats(0.1, 1000), min_size=3, max_size=7)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ((40, 41, 42), (44, 45, 46), "better"),
        ((44, 45, 46), (40, 41, 42), "worse"),
        ((40, 41, 42), (41, 42.9, 43), "same"),  # half of each range: 1 + 1
        ((40, 41, 42), (42.2, 43.2, 44.2), "better"),
        ((100, 100, 100), (100.9, 100.9, 100.9), "same"),  # under 1%
        ((100, 100, 100), (101.1, 101.1, 101.1), "better"),
        ((40, 41), (80, 81), "unclear"),
        ((40, 41, 42), (80,), "unclear"),
    ],
)
def test_the_rule(before, after, verdict):
    assert judge(Series.of(before), Series.of(after), more_is_better=True) == verdict
    mirrored = {"better": "worse", "worse": "better"}.get(verdict, verdict)
    assert judge(Series.of(before), Series.of(after), more_is_better=False) == mirrored


def test_shares_are_judged_in_points():
    none, few, many = ([v] * 3 for v in (0.0, 0.4, 2.0))
    for after, verdict in ((few, "same"), (many, "worse")):
        found = judge(Series.of(none), Series.of(after), more_is_better=False, points=True)
        assert found == verdict


@given(values)
def test_nothing_is_a_change_of_itself(some):
    assert judge(Series.of(some), Series.of(some), True) == "same"


@given(values, values)
def test_there_and_back_are_opposites(some, others):
    a, b = Series.of(some), Series.of(others)
    opposite = {"better": "worse", "worse": "better", "same": "same"}
    there, back = judge(a, b, True), judge(b, a, True)
    # The least change is in percent of the first, which differs between the two ways.
    close = abs(a.median - b.median) <= 2 * LEAST_CHANGE * max(a.median, b.median)
    assert back == opposite[there] or close


@given(values, st.floats(0.0, 0.999))
def test_medians_within_both_halves_are_noise(some, share):
    a = Series.of(some)
    spread = (a.max - a.min) / 2
    b = a.model_copy(update={"median": a.median + share * 2 * spread})
    assert judge(a, b, True) == "same"


def test_rows_are_matched_by_what_they_measured():
    before = make_result(make_row("a"), make_row("b"), make_row("gone"))
    after = make_result(make_row("b", fps=(80, 81, 82)), make_row("new"), make_row("a"))
    found = compare(before, after)
    told = [(c.row, c.name, c.verdict) for c in found.changes if c.verdict != "same"]
    assert told == [("b 289x513, openvino fp32", "engine fps", "better")]
    assert found.only_before == ["gone 289x513, openvino fp32"]
    assert found.only_after == ["new 289x513, openvino fp32"]
    assert len({c.name for c in found.changes}) == 9


def test_another_size_batch_engine_or_precision_is_another_row():
    for over in ({"size": "9x9"}, {"batch": 2}, {"engine": "tensorrt"}, {"precision": "bf16"}):
        found = compare(make_result(make_row()), make_result(make_row(**over)))
        assert not found.changes
        assert found.only_before
        assert found.only_after


def test_what_makes_two_files_hard_to_compare_is_said():
    after = make_result(others=40.0, interrupted=True)
    after.machine.cpu, after.settings.seconds = "another", 9
    after.machine.versions["numpy"] = "3.0"
    notes = "\n".join(compare(make_result(), after).notes)
    for word in ("another", "seconds 3.0 and 9", "numpy 2.0 became 3.0", "40%", "B ended early"):
        assert word in notes


def save(path, result):
    path.write_text(result.to_json(), encoding="utf-8")
    return path


def test_the_program_says_what_changed_and_succeeds(streamseg, tmp_path):
    slow = make_row(
        fps=(20.0, 20.1, 20.2),
        live=[make_live(p50=(50.0, 50.0, 50.0), missed=(9.0, 9.0, 9.0))],
        peak=Peak(fps=Series.of([35.0, 36.0, 37.0]), probes=[]),
    )
    a = save(tmp_path / "a.json", make_result())
    b = save(tmp_path / "b.json", make_result(slow))
    done = streamseg("bench", "compare", a, b)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert sum(line.startswith("worse ") for line in lines) == 3
    assert "0 better, 3 worse, 6 same, 0 unclear" in lines
    assert any("engine fps 41 (40..42) -> 20.1 (20..20.2), -51.0%" in line for line in lines)
    done = streamseg("bench", "compare", a, b, "--fail-on-regression", "5")
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert line.startswith("error: 3 figures are worse by more than 5%")
    assert streamseg("bench", "compare", a, b, "--fail-on-regression", "200").code == 0
    assert streamseg("bench", "compare", b, a, "--fail-on-regression", "0").code == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "cannot be read"),
        ("nonsense", "is not JSON"),
        ("[]", "is not a benchmark"),
        ('{"kind": "streamseg bench", "schema": 2}', "schema 2"),
        ('{"kind": "streamseg bench", "schema": 1}', "made"),
    ],
)
def test_what_is_no_benchmark_is_one_line(streamseg, tmp_path, text, says):
    a = save(tmp_path / "a.json", make_result())
    bad = tmp_path / "bad.json"
    if text is not None:
        bad.write_text(text)
    done = streamseg("bench", "compare", a, bad)
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert "bad.json" in line
    assert says in line


def test_text_ends_with_the_rule():
    text = to_text(compare(make_result(), make_result()))
    assert "0 better, 0 worse, 9 same, 0 unclear" in text
    assert text.splitlines()[-1].startswith("better or worse: the medians differ by more than half")


def test_a_later_version_may_add_keys(tmp_path):
    data = json.loads(make_result().to_json())
    data["new"], data["rows"][0]["new"] = 1, 2
    path = tmp_path / "a.json"
    path.write_text(json.dumps(data))
    from tools.bench.result import read_result

    assert read_result(path) == make_result()
