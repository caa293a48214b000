"""Whole benchmarks: with the fake engine in this process, and the program as its users run it."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time

import pytest

from engines.engine import EngineInfo
from engines.errors import EngineUnavailableError
from engines.fake_engine import FakeEngine
from tests.networks import make_card, network, random_layer, save
from tests.tools.bench.test_pages import check_page
from tests.tools.test_interrupt import Process
from tools.bench import rounds
from tools.bench.measure import Alone
from tools.bench.plan import PARTS, make_cases
from tools.bench.result import read_result
from tools.bench.rounds import Ask
from tools.bench.session import bench
from tools.errors import ToolError

pytestmark = pytest.mark.timeout(60)
PICTURE = (36, 64)


def fake(model, *, engine, precision, batch, **rest):
    """Stands for load_engine: bf16 is refused, as by a device that has none."""
    if precision == "bf16":
        raise EngineUnavailableError("the fake engine does not compute in bf16")
    made = FakeEngine(model.card, batch=batch, depth=2, parallel=1, delay_s=0.004)
    made.info = EngineInfo("fake", precision, "1", "this process", "asked for")
    return made


def ask(tmp_path, **over):
    options = {
        "cases": make_cases(["voc"], ["18x32"], [], [], ["fp32"]),
        "source": None,
        "picture": PICTURE,
        "card": None,
        "weights": None,
        "device": None,
        "seconds": 0.15,
        "warmup": 0.05,
        "rounds": 2,
        "rates": [40.0],
        "parts": list(PARTS),
        "json": tmp_path / "b.json",
        "quiet": True,
    }
    return Ask(**{**options, **over})


def test_one_run_has_everything(tmp_path, clip, capsys):
    wanted = ask(
        tmp_path,
        cases=make_cases(["voc"], ["18x32", "36x64"], ["1,3"], [], ["fp32"]),
        source=str(clip),
        markdown=tmp_path / "b.md",
        html=tmp_path / "b.html",
        trace=tmp_path / "b.trace.json",
        quiet=False,
    )
    assert bench(wanted, fake) == 0
    result = read_result(wanted.json)
    assert [row.title for row in result.rows] == [
        "voc 18x32, fake fp32",
        "voc 18x32, fake fp32, batch 3",
        "voc 36x64, fake fp32",
        "voc 36x64, fake fp32, batch 3",
    ]
    for row in result.rows:
        single = row.batch == 1
        assert set(row.rates) == ({"engine", "synthetic", "file"} if single else {"engine"})
        assert all(len(series.values) == 2 for series in row.rates.values())
        assert set(row.cpu_ms) == set(row.rates)
        assert all(0 < v < 1000 for series in row.cpu_ms.values() for v in series.values)
        assert len(row.live) == single
        assert (row.peak is not None) == single
        if single:
            assert set(row.ratios) == {"synthetic/engine", "file/engine", "file/synthetic"}
            pairs = zip(row.rates["file"].values, row.rates["engine"].values, strict=True)
            ratios = [file / engine for file, engine in pairs]
            assert row.ratios["file/engine"].values == pytest.approx(ratios, abs=1e-3)
            assert row.live[0].frames == 2 * 6
            assert sum(d[2] for d in row.live[0].distribution) == 12 - row.live[0].missed
            assert {p.round for p in row.peak.probes} == {1, 2}
            assert [s["name"] for s in row.stages["file"]][:2] == ["capture", "preprocess"]
    one, three = (row.rates["engine"].median for row in result.rows[:2])
    assert three > 1.5 * one, "a batch of three counts three"
    assert result.settings.picture == "96x128", "the clip's own size"
    assert result.machine.cores >= 1
    assert result.machine.cpu
    assert result.machine.versions["numpy"]
    assert result.timeline.spans
    assert {s.row for s in result.timeline.spans} >= {"capture", "infer", "network", "deliver"}
    _, charts = check_page(wanted.html.read_text())
    assert [c.get("class") for c in charts] == ["bars", "distribution", "distribution", "timeline"]
    assert json.loads(wanted.trace.read_text())["traceEvents"]
    printed = capsys.readouterr()
    assert "Throughput, frames/s" in printed.out
    assert "round 2/2" in printed.err
    assert "| voc 18x32, fake fp32 |" in wanted.markdown.read_text()


def test_a_bad_combination_is_one_failed_row(tmp_path, capsys):
    wanted = ask(
        tmp_path,
        cases=make_cases(["voc", "nonesuch"], ["18x32"], [], [], ["fp32", "bf16"]),
        parts=["engine"],
        quiet=False,
    )
    assert bench(wanted, fake) == 0
    rows = read_result(wanted.json).rows
    assert [row.error is None for row in rows] == [True, False, False, False]
    assert "bf16" in rows[1].error
    assert "nonesuch" in rows[2].error
    assert rows[0].rates["engine"].median > 0
    assert not rows[1].rates
    out = capsys.readouterr().out
    assert "Failed\n" in out


def test_where_all_fail_it_is_an_error_that_says_the_first(tmp_path):
    cases = make_cases(["nonesuch", "another"], [], [], [], [])
    with pytest.raises(ToolError, match=r"'nonesuch' is unknown.*1 more fail"):
        bench(ask(tmp_path, cases=cases), fake)
    assert not list(tmp_path.iterdir())


def test_an_engine_that_fails_later_leaves_the_others_and_its_own_figures(tmp_path):
    def fails_later(model, *, precision, **rest):
        engine = fake(model, precision=precision, **rest)
        if precision == "fp16":
            engine._fail_on = frozenset(range(20, 10**6))
        return engine

    cases = make_cases(["voc"], ["18x32"], [], [], ["fp16", "fp32"])
    wanted = ask(tmp_path, cases=cases, parts=["engine", "synthetic"])
    assert bench(wanted, fails_later) == 0
    bad, good = read_result(wanted.json).rows
    assert "told to fail" in bad.error
    assert good.error is None
    assert len(good.rates["synthetic"].values) == 2


def test_an_engine_that_fails_at_once_is_an_error_and_leaves_no_file(tmp_path):
    def fails(model, **rest):
        engine = fake(model, **rest)
        engine._fail_on = frozenset(range(4, 10**6))  # it survives being warmed
        return engine

    with pytest.raises(ToolError, match=r"nothing can be measured: .*told to fail"):
        bench(ask(tmp_path, parts=["engine"]), fails)
    assert not list(tmp_path.iterdir())


def test_rounds_are_taken_in_turns(tmp_path, monkeypatch):
    order = []

    def measured(engine, *rest):
        order.append(engine.card.input.height)
        return Alone(10.0, 1.0)

    monkeypatch.setattr(rounds, "measure_engine", measured)
    cases = make_cases(["voc"], ["18x32", "36x64"], [], [], ["fp32"])
    bench(ask(tmp_path, cases=cases, parts=["engine"], rounds=3), fake)
    assert order == [18, 36] * 3


def test_a_stop_keeps_what_was_measured(tmp_path, monkeypatch):
    real, done = rounds.measure_engine, []

    def counted(engine, seconds, warmup_s, stop):
        if len(done) == 3:
            threading.Timer(0.05, stop).start()
        done.append(1)
        return real(engine, 30.0 if len(done) == 4 else seconds, warmup_s, stop)

    monkeypatch.setattr(rounds, "measure_engine", counted)
    cases = make_cases(["voc"], ["18x32", "36x64"], [], [], ["fp32"])
    wanted = ask(tmp_path, cases=cases, parts=["engine"], rounds=50)
    begun = time.monotonic()
    assert bench(wanted, fake) == 130
    assert time.monotonic() - begun < 20
    result = read_result(wanted.json)
    assert result.interrupted
    assert result.rounds_done == 1
    assert [len(row.rates["engine"].values) for row in result.rows] == [2, 1]


def test_what_broke_unexpectedly_keeps_what_was_measured(tmp_path, monkeypatch):
    real, done = rounds.measure_engine, []

    def breaks(*rest):
        done.append(1)
        if len(done) == 2:
            raise ZeroDivisionError("a bug")
        return real(*rest)

    monkeypatch.setattr(rounds, "measure_engine", breaks)
    wanted = ask(tmp_path, parts=["engine"], rounds=3)
    with pytest.raises(ZeroDivisionError):
        bench(wanted, fake)
    assert len(read_result(wanted.json).rows[0].rates["engine"].values) == 1


SHORT = ("--seconds", "0.2", "--warmup", "0", "--rounds", "1")


def test_the_program_measures_a_real_network(streamseg, colours, clip, tmp_path):
    words = ["--model", colours, "--size", "24x32,48x64", "--rates", "20", "--only"]
    words += ["engine,file,live", *SHORT, "--json", "b.json", "--html", "b.html"]
    done = streamseg("bench", clip, *words)
    assert done.code == 0, done.err
    result = read_result(tmp_path / "b.json")
    assert [row.size for row in result.rows] == ["24x32", "48x64"]
    assert all(row.engine == "openvino" and not row.error for row in result.rows)
    assert all(row.live[0].missed <= row.live[0].frames for row in result.rows)
    assert "file / engine" in done.out
    check_page((tmp_path / "b.html").read_text())
    again = streamseg("bench", "compare", "b.json", "b.json")
    assert again.code == 0
    assert "0 better, 0 worse" in again.out


def test_a_network_of_fixed_size_is_a_failed_row(streamseg, tmp_path, rng):
    save(tmp_path, network(random_layer(rng, 3, 4), size=(12, 16)), make_card())
    words = ["--model", "small.onnx", "--only", "engine", *SHORT]
    done = streamseg("bench", *words, "--size", "12x16,20x28")
    assert done.code == 0, done.err
    assert "Failed" in done.out
    (line,) = [line for line in done.out.splitlines() if "20x28" in line]
    assert "20" in line.partition(":")[2]
    done = streamseg("bench", *words, "--size", "20x28")
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith("error: nothing can be measured: ")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--size", "big"], "--size: should be height x width"),
        (["--batch", "0"], "--batch"),
        (["--engine", "cuda"], "--engine is one of"),
        (["--only", "file"], "name a SOURCE"),
        (["--only", "all"], "--only is one of"),
        (["--rates", "0"], "--rates"),
        (["x.mp4", "--picture", "9x9"], "--picture"),
        (["--batch", "2", "--only", "live"], "--batch 1"),
        (["--batch", "2", "--trace", "t.json"], "--batch 1"),
        (["compare", "a.json"], "B.json"),
    ],
)
def test_wrong_usage_is_code_2_and_one_message(streamseg, words, says):
    done = streamseg("bench", *words)
    assert done.code == 2, done
    assert says in " ".join(done.err.split())
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nonesuch.mp4"], "no file or folder"),
        (["--json", "no/such/folder.json"], "no folder"),
        (["--json", "a.json", "--html", "a.json"], "named twice"),
        (["--model", "m.onnx", "--json", "m.onnx", "--force"], "is what is measured"),
    ],
)
def test_mistakes_are_one_line_before_anything_runs(streamseg, tmp_path, words, says):
    done = streamseg("bench", *words)
    assert done.code == 1, done
    (line,) = done.err.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_ctrl_c_writes_what_there_is_and_says_so(env, colours, tmp_path):
    words = ["bench", "--model", colours, "--only", "engine", "--seconds", "0.2", "--warmup", "0"]
    words += ["--rounds", "1000", "--json", "b.json"]
    with Process(words, env, tmp_path) as process:
        process.wait_for("round 2/1000")
        done = process.send(signal.SIGINT)
    assert done.code == 130, done
    result = read_result(tmp_path / "b.json")
    assert result.interrupted
    assert result.rounds_done >= 2
    assert len(result.rows[0].rates["engine"].values) == result.rounds_done
    assert "what was measured until then is kept" in done.err
    assert "Ended early" in done.out


def test_run_writes_a_trace_and_the_same_frames(streamseg, clip, colours, tmp_path):
    plain = streamseg("run", clip, "--model", colours, "--mask", "a/")
    traced = streamseg("run", clip, "--model", colours, "--mask", "b/", "--trace", "t.json")
    assert plain.code == traced.code == 0, traced.err
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "b").iterdir())
    assert all(
        (tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names
    )
    trace = json.loads((tmp_path / "t.json").read_text())
    work = [e for e in trace["traceEvents"] if e["ph"] == "X" and e["cat"] == "work"]
    counts = {}
    for event in work:
        counts[event["name"]] = counts.get(event["name"], 0) + 1
    assert counts == dict.fromkeys(
        ["capture", "preprocess", "infer", "colorize", "deliver", "mask"], 10
    )
    assert trace["otherData"]["model"] == "colours"
    again = streamseg("run", clip, "--model", colours, "--trace", "t.json")
    assert again.code == 1
    assert "--force" in again.err


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_ctrl_c_leaves_a_whole_trace(env, media, tmp_path):
    words = ["run", media / "long.mp4", "--trace", "t.json"]
    with Process(words, env, tmp_path) as process:
        process.wait_for("output")
        time.sleep(1.0)
        done = process.send(signal.SIGINT)
    assert done.code == 130, done
    trace = json.loads((tmp_path / "t.json").read_text())
    assert [e for e in trace["traceEvents"] if e["ph"] == "X"]
