"""TensorRT on a real card: `make test-gpu`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from engines import guard
from engines.cuda.device import open_device
from engines.errors import InferenceError
from engines.model import find_model
from engines.tensorrt import plans
from engines.tensorrt.options import PlanOptions
from engines.tensorrt.passport import passport_path
from tests import networks

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]
if "STREAMSEG_GPU" not in os.environ:
    pytest.skip("needs a GPU: make test-gpu", allow_module_level=True)
CARD = networks.make_card(classes=networks.LEVELS)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tensorrt"


@pytest.fixture
def small(tmp_path, cache):
    path = networks.save(tmp_path, networks.red_levels(), CARD)
    return plans.Order(find_model(path), PlanOptions(batch=4, batch_max=8), open_device())


def test_voc_in_fp16_passes_the_guard_on_real_frames(cache):
    order = plans.Order(find_model("voc"), PlanOptions(), open_device(), print)
    with plans.load_kept(order) as engine:
        for picture in guard.guard_pictures(engine.card):
            assert engine.submit(picture).result().any()
    (plan,) = cache.glob("*.plan")
    assert json.loads(passport_path(plan).read_text())["guard"]["pixels"] >= 0.99


def test_a_plan_is_refused_and_built_again_after_an_edit(small, cache):
    plans.load_kept(small).close()
    (plan,) = cache.glob("*.plan")
    before = plan.stat().st_mtime_ns
    plans.load_kept(small).close()
    assert plan.stat().st_mtime_ns == before
    passport = json.loads(passport_path(plan).read_text())
    passport["host"]["driver"] = "1.2.3"
    passport_path(plan).write_text(json.dumps(passport))
    plans.load_kept(small).close()
    assert plan.stat().st_mtime_ns != before


def test_the_engine_works_again_after_an_error(small, monkeypatch):
    pictures = networks.noise(1, CARD)
    with plans.load_kept(small) as engine:
        for _ in range(2 * engine.depth):
            slot = engine._free[0] if engine._free else engine._flying[0][0]
            with monkeypatch.context() as patch:
                patch.setattr(slot, "compute", lambda run, slot=slot: slot._must(False))
                with pytest.raises(InferenceError):
                    engine.submit(pictures)
            answer = engine.submit(pictures).result()
            assert (answer == networks.red_level(pictures)).mean() > 0.98


def test_ten_thousand_inferences_without_growth(small):
    import pycuda.driver as cuda

    def free() -> int:
        with open_device().current():
            return cuda.mem_get_info()[0]

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    with plans.load_kept(small) as engine:
        batches = [networks.noise(1 + n % 8, CARD, n) for n in range(16)]
        for n in range(500):
            engine.submit(batches[n % 16])
        engine.submit(batches[0]).result()
        card, host = free(), resident()
        for n in range(10_000):
            engine.submit(batches[n % 16])
        engine.submit(batches[0]).result()
        assert free() >= card - (1 << 20)
        assert resident() <= host + (8 << 20)


def test_the_second_start_takes_under_three_seconds(cache):
    code = "from engines.choose import load_engine; load_engine('voc', engine='tensorrt').close()"
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        seconds.append(time.perf_counter() - begun)
    print("starts:", seconds)
    assert min(seconds[1:]) < 3


def test_torch_lives_beside_it(small):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    pictures = networks.noise(2, CARD)
    values = torch.arange(1000.0, device="cuda")
    with plans.load_kept(small) as engine:
        pending = engine.submit(pictures)
        total = float((values * 2).sum())
        answer = pending.result()
    assert total == 999000.0
    assert (answer == networks.red_level(pictures)).mean() > 0.98
    assert float(values.sum()) == 499500.0
    assert np.isfinite(total)
