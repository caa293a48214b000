"""`streamseg build`, and `run` on what it builds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto

from tests import networks
from tests.tools.program import call, environment

ROOT = Path(__file__).parents[2]
CARD = networks.make_card(classes=networks.LEVELS)


@pytest.fixture
def network(tmp_path):
    return networks.save(tmp_path, networks.red_levels(), CARD)


@pytest.fixture
def on_gpu(facts_file, tmp_path):
    """Runs the program with TensorRT's stand-in and a cache of this test's own."""
    env = environment(tmp_path / "cache", PYTHONPATH=str(ROOT))

    def run(*words):
        command = [sys.executable, "-m", "tests.engines.tensorrt.program", facts_file, *words]
        return call(command, env=env, cwd=tmp_path)

    return run


def test_a_plan_in_the_cache_is_what_run_uses(on_gpu, network, clip, tmp_path):
    built = on_gpu("build", network, "--engine", "tensorrt", "--json", "made.json")
    assert built.code == 0, built.err
    assert "standin: building" in built.err
    made = json.loads((tmp_path / "made.json").read_text())
    assert made["host"]["gpu"] == "Stand-in GPU"
    assert made["options"]["precision"] == "fp16"
    assert made["guard"]["pixels"] >= 0.99
    assert made["size_mb"] > 0
    words = ["--engine", "tensorrt", "--max-frames", "5", "--report", "r.json"]
    done = on_gpu("run", clip, "--model", network, *words, "-o", "out.mp4")
    assert done.code == 0, done.err
    assert "standin: building" not in done.err
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["engine"]["name"] == "tensorrt"
    assert report["engine"]["precision"] == "fp16"
    assert report["frames"]["delivered"] == 5


def test_run_builds_what_is_not_there_and_says_so(on_gpu, network, clip):
    words = ["run", clip, "--model", network, "--engine", "tensorrt", "--max-frames", "3"]
    first = on_gpu(*words)
    assert first.code == 0, first.err
    assert "building small in fp16 for Stand-in GPU (once; this takes minutes)" in first.err
    assert "guard: " in first.err
    again = on_gpu(*words)
    assert again.code == 0
    assert "building" not in again.err


def test_a_plan_in_a_file_runs_by_its_path(on_gpu, network, clip, tmp_path):
    words = ["--engine", "tensorrt", "-o", "mine.plan", "--size", "24x32", "--max-batch", "4"]
    built = on_gpu("build", network, *words)
    assert built.code == 0, built.err
    passport = json.loads((tmp_path / "mine.json").read_text())
    assert passport["card"]["input"]["height"] == 24
    assert passport["options"]["batch_max"] == 4
    done = on_gpu("run", clip, "--model", "mine.plan", "--engine", "tensorrt", "--max-frames", "3")
    assert done.code == 0, done.err
    assert "24x32" in done.err
    again = on_gpu("build", network, *words)
    assert again.code == 1
    assert "mine.plan" in again.err
    passport["host"]["tensorrt"] = "11.0.0"
    (tmp_path / "mine.json").write_text(json.dumps(passport))
    done = on_gpu("run", clip, "--model", "mine.plan", "--engine", "tensorrt")
    assert done.code == 1
    assert "tensorrt: 11.0.0, here 11.4" in done.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--size", "12"], 2, "height x width, such as 512x1024"),
        (["--batch", "8", "--max-batch", "4", "--min-batch", "9"], 2, "batches must rise"),
        (["--precision", "int4"], 2, "precision"),
        (["-o", "x.onnx"], 2, "ends in .plan"),
        (["-o", "x.plan", "--json", "x.json"], 2, "passport"),
        (["--weights", "random"], 1, "torchvision's networks"),
        (["--device", "7"], 1, "no GPU 7 here"),
        (["--device", "CPU"], 1, "is no NVIDIA GPU"),
        (["--frames", "nowhere"], 1, "holds no pictures"),
    ],
)
def test_mistakes_are_one_clear_line(on_gpu, network, words, code, message):
    done = on_gpu("build", network, "--engine", "tensorrt", *words)
    assert done.code == code
    assert message in " ".join(done.err.split())
    assert "Traceback" not in done.err


def test_without_tensorrt_it_says_how_to_get_it(streamseg, network):
    done = streamseg("build", network, "--engine", "tensorrt")
    assert done.code == 1
    assert "streamseg[tensorrt]" in done.err


def test_torch_needs_no_build(streamseg, network):
    pytest.importorskip("torch")
    done = streamseg("build", network, "--engine", "torch", "-o", "n.onnx")
    assert done.code == 2
    assert "nothing to build" in " ".join(done.err.split())


def test_an_onnx_to_take_along(streamseg, network, clip, tmp_path):
    words = ["--engine", "onnxruntime", "--precision", "fp16"]
    built = streamseg("build", network, *words, "-o", "half.onnx", "--json", "made.json")
    assert built.code == 0, built.err
    model = onnx.load(tmp_path / "half.onnx")
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    assert yaml.safe_load((tmp_path / "half.yaml").read_text())["name"] == "small"
    assert json.loads((tmp_path / "made.json").read_text())["guard"]["pixels"] > 0.98
    done = streamseg("run", clip, "--model", "half.onnx", "--max-frames", "3")
    assert done.code == 0, done.err
    again = streamseg("build", network, *words, "-o", "half.onnx")
    assert again.code == 1
    assert "half.onnx" in again.err


def test_the_engines_without_plans_want_a_name(streamseg, network):
    done = streamseg("build", network, "--engine", "openvino")
    assert done.code == 2
    assert "-o NAME.onnx" in " ".join(done.err.split())


def test_a_refined_plan_is_another_one_that_says_what_it_is(on_gpu, network, clip, tmp_path):
    words = ["--engine", "tensorrt", "--refine", "crf:scale=2"]
    built = on_gpu("build", network, *words, "-o", "fine.plan", "--json", "made.json")
    assert built.code == 0, built.err
    passport = json.loads((tmp_path / "fine.json").read_text())
    assert passport["options"]["refine"].startswith("crf:scale=2,stride=4,edge=5,iterations=")
    size = (CARD.input.height * 2, CARD.input.width * 2)
    assert (passport["card"]["input"]["height"], passport["card"]["input"]["width"]) == size
    assert passport["guard"]["pixels"] >= 0.99  # compared with the refined FP32 masks
    assert json.loads((tmp_path / "made.json").read_text())["options"] == passport["options"]

    run = ["run", clip, "--engine", "tensorrt", "--max-frames", "3", "--report", "r.json"]
    for refine in ([], ["--refine", "crf:scale=2"]):  # the plan's own goes without saying
        done = on_gpu(*run, "--model", "fine.plan", *refine, "--force")
        assert done.code == 0, done.err
        report = json.loads((tmp_path / "r.json").read_text())
        assert report["engine"]["refine"] == passport["options"]["refine"]
    other = on_gpu(*run, "--model", "fine.plan", "--refine", "guided", "--force")
    assert other.code == 1
    assert "was built with --refine crf:scale=2" in other.err.splitlines()[-1]


def test_each_refinement_has_a_plan_of_its_own_in_the_cache(on_gpu, network, clip):
    words = ["run", clip, "--model", network, "--engine", "tensorrt", "--max-frames", "2"]
    for refine, builds in (("none", True), ("guided", True), ("none", False), ("guided", False)):
        done = on_gpu(*words, "--refine", refine)
        assert done.code == 0, done.err
        assert ("standin: building" in done.err) == builds


def test_an_onnx_file_is_refined_when_it_runs_and_not_before(streamseg, network, tmp_path):
    words = ["build", network, "--engine", "openvino", "-o", "out.onnx"]
    refused = streamseg(*words, "--refine", "crf")
    assert refused.code == 2
    assert "--refine goes with --engine tensorrt" in " ".join(refused.err.split())
    wrong = streamseg(*words, "--refine", "crf:depth=1")
    assert wrong.code == 1
    assert "'depth=1' is not KEY=NUMBER" in wrong.err
    assert streamseg(*words, "--refine", "none").code == 0


def test_what_is_taken_along_names_no_int8_form_that_stays(streamseg, tmp_path):
    card = CARD.model_copy(update={"int8": "small-int8.onnx"})
    network = networks.save(tmp_path, networks.red_levels(), card)
    done = streamseg("build", network, "--engine", "openvino", "-o", "mine.onnx")
    assert done.code == 0, done.err
    assert "int8" not in yaml.safe_load((tmp_path / "mine.yaml").read_text())
    cv2.imwrite(str(tmp_path / "one.png"), np.full((20, 20, 3), 90, np.uint8))
    done = streamseg("run", "one.png", "--model", "mine.onnx", "--mask", "ids.png")
    assert done.code == 0, done.err


@pytest.mark.timeout(240)
def test_int8_from_a_clip_runs_and_says_what_it_is(streamseg, clip, tmp_path):
    network = networks.save(tmp_path, networks.red_levels(), CARD)
    words = ["build", network, "--engine", "openvino", "--precision", "int8"]
    words += ["--calibrate", clip, "-o", "small8.onnx", "--allow-drift", "--json", "made.json"]
    done = streamseg(*words)
    assert done.code == 0, done.err
    assert "ranges from 8 pictures, checked on 2 others" in done.err
    made = json.loads((tmp_path / "made.json").read_text())
    assert made["precision"] == "int8"
    assert made["kept_in_fp32"] == []
    assert made["guard"]["frames"] == 2
    card = yaml.safe_load((tmp_path / "small8.yaml").read_text())
    assert card["metrics"]["precision"] == "int8"
    done = streamseg("run", clip, "--model", "small8.onnx", "--mask", "ids/%03d.png")
    assert done.code == 0, done.err
    assert len(list((tmp_path / "ids").glob("*.png"))) == 10


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--precision", "int8", "-o", "x.onnx"], "--precision int8 and --calibrate"),
        (["--calibrate", "CLIP", "-o", "x.onnx"], "--precision int8 and --calibrate"),
        (["--precision", "int8", "--calibrate", "CLIP"], "-o NAME.onnx writes a network"),
        (["--precision", "int8", "--calibrate", "none", "-o", "x.onnx"], "none"),
        (["--precision", "int8", "--calibrate", "one.png", "-o", "x.onnx"], "has 1 pictures; 5"),
    ],
)
def test_mistakes_with_int8_are_one_line(streamseg, clip, tmp_path, words, text):
    cv2.imwrite(str(tmp_path / "one.png"), np.zeros((20, 20, 3), np.uint8))
    network = networks.save(tmp_path, networks.red_levels(), CARD)
    words = [str(clip) if word == "CLIP" else word for word in words]
    done = streamseg("build", network, "--engine", "openvino", *words)
    assert done.code != 0
    assert text in " ".join(done.err.replace("│", " ").split())
    assert "Traceback" not in done.err
    assert not (tmp_path / "x.onnx").exists()
