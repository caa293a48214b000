"""Plans in the cache: built once, refused with the field that differs, proven, never half there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from engines import guard
from engines.cuda.device import open_device
from engines.errors import DriftError, EngineUnavailableError, PlanError
from engines.model import find_model
from engines.tensorrt import plans
from engines.tensorrt.options import PlanOptions
from engines.tensorrt.passport import passport_path, read_passport
from tests import networks

pytestmark = pytest.mark.timeout(110)
CARD = networks.make_card(classes=networks.LEVELS)
ROOT = Path(__file__).parents[3]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tensorrt"


@pytest.fixture
def order(tmp_path, cache):
    path = networks.save(tmp_path, networks.red_levels(), CARD)

    def make(said: list[str] | None = None, **more) -> plans.Order:
        options = PlanOptions(**more.pop("options", {}))
        said = [] if said is None else said
        model = more.pop("model", None) or find_model(path)
        return plans.Order(model, options, open_device(), said.append, **more)

    return make


def load(order) -> None:
    with plans.load_kept(order) as engine:
        assert engine.submit(networks.noise(1, CARD)).result().any()


def test_a_plan_is_built_once_and_kept_for_its_user_alone(trt11, order, cache):
    for _ in range(3):
        load(order())
    assert trt11.builds == 1
    (plan,) = cache.glob("*.plan")
    assert cache.stat().st_mode & 0o077 == 0
    passport = json.loads(passport_path(plan).read_text())
    assert passport["schema"] == 1
    assert passport["host"] == {
        "gpu": "Stand-in GPU",
        "compute_capability": "8.9",
        "driver": open_device().driver,
        "tensorrt": "11.4.0.106",
    }
    assert passport["guard"]["pixels"] > 0.99
    assert not [p for p in cache.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gpu", "Another card"),
        ("compute_capability", "7.5"),
        ("driver", "1.2.3"),
        ("tensorrt", "11.0.0"),
    ],
)
def test_a_plan_from_elsewhere_is_built_again_and_the_field_is_named(
    trt11, order, cache, field, value
):
    load(order())
    (plan,) = cache.glob("*.plan")
    passport = json.loads(passport_path(plan).read_text())
    passport["host"][field] = value
    passport_path(plan).write_text(json.dumps(passport))
    said: list[str] = []
    load(order(said))
    assert any(f"{field}: {value}, here" in line for line in said)
    assert trt11.builds == 2
    passport_path(plan).write_text(json.dumps(passport))
    with pytest.raises(PlanError, match=f"{field}: {value}, here .*streamseg build small"):
        plans.load_file(plan, open_device(), "asked for")


@pytest.mark.parametrize("damage", ["plan cut", "plan gone", "passport cut", "passport gone"])
def test_a_damaged_plan_is_built_again(trt11, order, cache, damage):
    load(order())
    (plan,) = cache.glob("*.plan")
    file = plan if "plan" in damage else passport_path(plan)
    if "cut" in damage:
        file.write_bytes(file.read_bytes()[:-40])
    else:
        file.unlink()
    load(order())
    assert trt11.builds == 2
    load(order())
    assert trt11.builds == 2


@pytest.mark.parametrize(
    "options", [{"precision": "fp32"}, {"batch_max": 2}, {"optimization": 5}, {"workspace_mib": 64}]
)
def test_other_options_are_another_plan(trt11, order, cache, options):
    load(order())
    load(order(options=options))
    load(order())
    assert trt11.builds == 2
    assert len(list(cache.glob("*.plan"))) == 2


def test_retrained_weights_are_another_plan(trt11, order, cache, tmp_path):
    load(order())
    network = networks.red_levels()
    tensor = network.graph.initializer[1]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.001, tensor.name))
    networks.save(tmp_path, network, CARD)
    load(order())
    assert trt11.builds == 2


def test_an_edited_option_in_a_passport_is_named(trt11, order, cache):
    load(order())
    (plan,) = cache.glob("*.plan")
    passport = json.loads(passport_path(plan).read_text())
    passport["options"]["workspace_mib"] = 7
    passport_path(plan).write_text(json.dumps(passport))
    said: list[str] = []
    load(order(said))
    assert any("workspace_mib: 7, asked 4096" in line for line in said)


def test_compatible_plans_travel_as_far_as_they_may(trt11, order, cuda, tmp_path):
    options = {"hardware_compatible": True, "version_compatible": True}
    made = plans.make(order(options=options))
    plan = tmp_path / "far.plan"
    for field, value, good in (
        ("gpu", "Another card", True),
        ("tensorrt", "11.0.0", True),
        ("driver", "1.2.3", True),
        ("tensorrt", "12.0.0", False),
    ):
        host = made[1].host.model_copy(update={field: value})
        plans.save(plan, made[0], made[1].model_copy(update={"host": host}))
        if good:
            plans.load_file(plan, open_device(), "asked for").close()
        else:
            with pytest.raises(PlanError, match=field):
                plans.load_file(plan, open_device(), "asked for")


def ruin(model: onnx.ModelProto) -> onnx.ModelProto:
    """What an overflow in FP16 does: one class wins everywhere on part of the scale."""
    for tensor in model.graph.initializer:
        if tensor.name == "b0":
            values = numpy_helper.to_array(tensor).copy()
            values[3] += np.asarray(0.1, values.dtype)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


def test_a_plan_whose_masks_drift_is_refused_by_name_and_not_kept(trt11, order, cache):
    trt11.break_masks = ruin
    with pytest.raises(DriftError, match=r"% of the pixels agree.*class[24] .*--allow-drift"):
        plans.load_kept(order())
    assert not list(cache.glob("*.plan"))
    said: list[str] = []
    load(order(said, allow_drift=True))
    assert any("warning" in line for line in said)
    (plan,) = cache.glob("*.plan")
    assert read_passport(plan).guard.allowed
    said.clear()
    load(order(said))
    assert any("allowed to drift" in line for line in said)
    assert trt11.builds == 2


def test_random_weights_are_not_guarded(trt11, order, tmp_path):
    card = CARD.model_copy(update={"metrics": {"weights": "random"}})
    path = networks.save(tmp_path, networks.red_levels(), card, "random")
    _, passport = plans.make(order(model=find_model(path)))
    assert passport.guard is None


def test_ones_own_frames(trt11, order, tmp_path):
    with pytest.raises(Exception, match="holds no pictures"):
        plans.make(order(frames=tmp_path / "nothing"))
    _, passport = plans.make(order(frames=guard.FRAMES))
    assert passport.guard.frames == len(list(guard.FRAMES.glob("*.jpg")))


def test_no_cache_folder_means_building_each_time(trt11, order, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "file"))
    said: list[str] = []
    load(order(said))
    load(order(said))
    assert trt11.builds == 2
    assert any("no cache folder" in line for line in said)


def test_a_device_that_is_not_there(trt11, cuda):
    with pytest.raises(EngineUnavailableError, match="no GPU 3 here; there are 1"):
        open_device(3)


def test_a_driver_that_does_not_work(trt11, cuda):
    cuda.failing["cuInit"] = "no CUDA-capable device is detected"
    with pytest.raises(EngineUnavailableError, match="no CUDA-capable device"):
        open_device()


CHILD = """
import json, sys, time
from pathlib import Path
from tests.engines.cuda.host_cuda import HostCuda
from tests.engines.tensorrt.standin import StandIn
cuda = HostCuda()
stand = StandIn(json.loads(Path(sys.argv[1]).read_text()), cuda)
cuda.install(sys.modules); stand.install(sys.modules)
stand.before_build = lambda: (print("building", flush=True), time.sleep(float(sys.argv[3])))
from engines.cuda.device import open_device
from engines.model import find_model
from engines.tensorrt import plans
from engines.tensorrt.options import PlanOptions
say = lambda line: print("said", line, flush=True)
with plans.load_kept(plans.Order(find_model(sys.argv[2]), PlanOptions(), open_device(), say)) as e:
    print("loaded", e.info.name, flush=True)
print("builds", stand.builds, flush=True)
"""


@pytest.fixture
def process(facts_file, tmp_path, cache):
    """Starts a program that loads the plan and takes `seconds` to build it."""
    network = networks.save(tmp_path, networks.red_levels(), CARD)
    started: list[subprocess.Popen[str]] = []

    def start(seconds: float) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", textwrap.dedent(CHILD), facts_file, network, seconds]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        started.append(
            subprocess.Popen([str(w) for w in words], stdout=subprocess.PIPE, text=True, env=env)
        )
        return started[-1]

    yield start
    for child in started:
        child.kill()
        child.communicate()


def test_two_processes_that_start_together_build_once(process, cache):
    both = [process(2.0), process(2.0)]
    texts = [child.communicate(timeout=60)[0] for child in both]
    assert [child.returncode for child in both] == [0, 0]
    assert sorted(text.count("builds 1") for text in texts) == [0, 1]
    assert sum("another process is building" in text for text in texts) == 1
    assert all("loaded tensorrt" in text for text in texts)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_build_that_is_killed_leaves_nothing_and_blocks_nobody(process, cache, number):
    first = process(60.0)
    while first.stdout.readline().strip() != "building":
        assert first.poll() is None
    waiting = process(0.0)
    while "another process" not in waiting.stdout.readline():
        assert waiting.poll() is None
    begun = time.monotonic()
    first.send_signal(number)
    first.wait(20)
    assert "loaded" in waiting.communicate(timeout=60)[0]
    assert time.monotonic() - begun < 30
    assert len(list(cache.glob("*.plan"))) == 1
    assert not [p for p in cache.iterdir() if p.name.startswith(".")]
