"""What OpenVINO computes in when nobody says: tried once, kept, and as fast as it can be."""

from __future__ import annotations

import numpy as np
import openvino as ov
import openvino.properties.hint as hints
import pytest

from engines import openvino_precision
from engines.choose import load_engine
from engines.openvino_engine import PRECISIONS, default_precision
from tests import networks

own = ov.Core().get_property("CPU", hints.inference_precision())
NAMES = {kind: name for name, kind in PRECISIONS.items()}
needs_choice = pytest.mark.skipif(own == ov.Type.f32, reason="this CPU computes in fp32 only")
CARD = networks.make_card(classes=networks.LEVELS)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def path(tmp_path):
    return networks.save(tmp_path, networks.red_levels(), CARD)


def kept(cache):
    return list((cache / "openvino").glob("*.precision"))


def precision(path):
    with load_engine(path, engine="openvino") as engine:
        return engine.info.precision


def test_a_cpu_without_another_has_fp32(path, cache):
    if own != ov.Type.f32:
        pytest.skip("this CPU has a choice")
    assert precision(path) == "fp32"
    assert not kept(cache)
    assert default_precision() == "fp32"


@needs_choice
def test_the_answer_is_kept_and_taken(path, cache):
    first = precision(path)
    (file,) = kept(cache)
    assert file.read_text(encoding="utf-8") == ("fp32" if first == "fp32" else "own")
    for answer, name in (("fp32", "fp32"), ("own", NAMES[own])):
        file.write_text(answer, encoding="utf-8")
        assert precision(path) == name
    file.write_text("nonsense", encoding="utf-8")
    assert precision(path) in ("fp32", NAMES[own])
    assert file.read_text(encoding="utf-8") in ("fp32", "own")


@needs_choice
def test_who_asks_gets_what_he_asks_for(path, cache):
    for name in ("fp32", NAMES[own]):
        with load_engine(path, engine="openvino", precision=name) as engine:
            assert engine.info.precision == name
    assert not kept(cache)


@needs_choice
@pytest.mark.parametrize(("times", "expected"), [((2.0, 1.0), own), ((1.05, 1.0), ov.Type.f32)])
def test_a_little_speed_is_not_worth_other_figures(times, expected, path, monkeypatch):
    monkeypatch.setattr(openvino_precision, "_best_times", lambda *args: list(times))
    core = ov.Core()
    model = core.read_model(path)
    assert openvino_precision.faster_precision(core, model, "CPU", {}, None) == expected


def test_times_are_those_of_the_network():
    """Of a network and one with eight times the work, in the same precision."""
    core, rng = ov.Core(), np.random.default_rng(0)
    seconds = []
    for count in (1, 8):
        x = ov.opset8.parameter([1, 64, 96, 3], ov.Type.u8)
        y = ov.opset8.transpose(ov.opset8.convert(x, "f32"), [0, 3, 1, 2])
        wide = ov.opset8.constant(rng.random((64, 3, 3, 3), "f4"))
        y = ov.opset8.convolution(y, wide, [1, 1], [1, 1], [1, 1], [1, 1])
        same = ov.opset8.constant(rng.random((64, 64, 3, 3), "f4"))
        for _ in range(count):
            y = ov.opset8.convolution(y, same, [1, 1], [1, 1], [1, 1], [1, 1])
        model = ov.Model([y], [x])
        seconds += openvino_precision._best_times(core, model, "CPU", {}, (ov.Type.f32,))
    assert seconds[1] > 2 * seconds[0] > 0
