"""The torch engine on a real card: `make test-gpu`."""

from __future__ import annotations

import os
from contextlib import contextmanager

import numpy as np
import pytest

from engines.cuda.device import open_device
from engines.cuda.memory import Staging
from engines.cuda.network import DeviceEngine
from engines.errors import CaptureError
from engines.guard import guard_pictures
from tests import networks
from tests.engines.modules import open_module

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]
if "STREAMSEG_GPU" not in os.environ:
    pytest.skip("needs a GPU: make test-gpu", allow_module_level=True)
torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("this torch can use no GPU", allow_module_level=True)

from engines.choose import load_engine  # noqa: E402

CARD = networks.make_card(48, 64, networks.LEVELS)
MOST = 8


@pytest.fixture(params=["fp16", "fp32"])
def engine(request):
    with open_module("red_levels", CARD, MOST, device="0", precision=request.param) as found:
        yield found


class Bound:
    """Memory and a stream of PyCUDA's, and the network bound to them; in the device's context."""

    def __init__(self, engine, most: int) -> None:
        import pycuda.driver as cuda

        shape = (most, engine.card.input.height, engine.card.input.width)
        self.pictures, self.labels = Staging((*shape, 3)), Staging(shape)
        self.stream = cuda.Stream()
        self.context = engine.bind(self.pictures.address, self.labels.address, most)

    def run(self, given, start=None):
        """Labels of the pictures: `start()`, or the network alone, between upload and download."""
        self.pictures.host[: len(given)] = given
        self.labels.host[:] = 255
        self.pictures.upload(len(given), self.stream)
        if start is None:
            self.context.enqueue(len(given), self.stream)
        else:
            start()
        self.labels.download(len(given), self.stream)
        self.stream.synchronize()
        return np.array(self.labels.host[: len(given)])

    def free(self) -> None:
        self.context.free()
        self.pictures.free()
        self.labels.free()


@contextmanager
def bound(engine, most: int = MOST):
    with engine.device.current():
        found = Bound(engine, most)
        try:
            yield found
        finally:
            found.free()


def same(labels, pictures) -> float:
    """The share of pixels that `red_levels` answers; FP16 rounds at the borders of levels."""
    return float((labels == networks.red_level(pictures)).mean())


@pytest.mark.parametrize("name", ["voc", "street"])
@pytest.mark.parametrize(("precision", "least"), [("fp16", 0.995), ("fp32", 0.999), ("bf16", 0.95)])
def test_labels_are_those_of_the_cpu(name, precision, least):
    with (
        load_engine(name, engine="torch", precision="fp32", device="cpu") as exact,
        load_engine(name, engine="torch", precision=precision, device="0") as engine,
    ):
        assert engine.info.device.startswith("GPU 0 (")
        assert engine.info.precision == precision
        shares = []
        for picture in guard_pictures(engine.card):
            labels = engine.submit(picture).result()
            shares.append((labels == exact.submit(picture).result()).mean())
        print(f"{name} in {precision}: {np.round(shares, 5)}")
        assert np.mean(shares) >= least


def test_without_being_asked_it_takes_the_gpu_and_fp16():
    with load_engine("voc", engine="torch") as engine:
        assert (engine.info.device[:5], engine.info.precision) == ("GPU 0", "fp16")
        assert isinstance(engine, DeviceEngine)
        assert engine.device is open_device(0)


def test_batches_of_every_size(engine):
    for count in range(1, MOST + 1):
        given = networks.noise(count, CARD, count)
        assert same(engine.submit(given).result(), given) > 0.98


def test_it_is_bound_without_a_copy(engine):
    with bound(engine) as slot:
        assert slot.context._pictures.data_ptr() == slot.pictures.address
        assert slot.context._labels.data_ptr() == slot.labels.address
        for count in (1, MOST, 3):
            given = networks.noise(count, CARD, count)
            assert same(slot.run(given), given) > 0.98


def test_a_captured_network_answers_as_a_plain_one(engine):
    with bound(engine) as slot:
        for count in (1, MOST):
            given = networks.noise(count, CARD, count)
            plain = slot.run(given)
            replay = slot.context.capture(
                slot.stream, lambda n=count: slot.context.enqueue(n, slot.stream)
            )
            for seed in range(3):
                other = networks.noise(count, CARD, 50 + seed)
                assert same(slot.run(other, replay), other) > 0.98
            assert (slot.run(given, replay) == plain).mean() >= 0.999


@pytest.mark.parametrize("name", ["voc", "street"])
def test_real_networks_are_captured(name):
    with load_engine(name, engine="torch") as engine, bound(engine, 1) as slot:
        frames = guard_pictures(engine.card)
        plain = [slot.run(frame) for frame in frames]
        replay = slot.context.capture(slot.stream, lambda: slot.context.enqueue(1, slot.stream))
        for frame, labels in zip(frames, plain, strict=True):
            assert (slot.run(frame, replay) == labels).mean() >= 0.999


def test_two_captured_slots_run_beside_each_other(engine):
    with bound(engine, 1) as first, bound(engine, 1) as second:
        replays = []
        for slot in (first, second):
            slot.run(networks.noise(1, CARD))
            replays.append(
                slot.context.capture(
                    slot.stream, lambda slot=slot: slot.context.enqueue(1, slot.stream)
                )
            )
        for seed in range(100):
            given = networks.noise(2, CARD, seed)
            for slot, picture, replay in zip((first, second), given, replays, strict=True):
                slot.pictures.host[0] = picture
                slot.pictures.upload(1, slot.stream)
                replay()
                slot.labels.download(1, slot.stream)
            for slot, picture in zip((first, second), given, strict=True):
                slot.stream.synchronize()
                assert same(slot.labels.host[:1], picture[None]) > 0.98


def test_ten_thousand_inferences_without_growth(engine):
    import pycuda.driver as cuda

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    batches = [networks.noise(1 + n % MOST, CARD, n) for n in range(16)]
    with bound(engine) as slot:
        slot.run(batches[MOST - 1])
        replay = slot.context.capture(slot.stream, lambda: slot.context.enqueue(1, slot.stream))
        for n in range(500):
            engine.submit(batches[n % 16])
            slot.run(batches[n % 16])
        free, host = cuda.mem_get_info()[0], resident()
        for n in range(10_000):
            engine.submit(batches[n % 16])
            if n % 10 == 0:
                slot.run(batches[n % 16])
                slot.run(batches[0], replay)
        engine.submit(batches[0]).result()
        assert cuda.mem_get_info()[0] >= free - (4 << 20)
        assert resident() <= host + (16 << 20)


def test_torchs_memory_lies_beside_pycudas(engine):
    import pycuda.driver as cuda

    values = torch.arange(1 << 20, device="cuda", dtype=torch.int64)
    given = networks.noise(MOST, CARD)
    with bound(engine) as slot:
        mine = cuda.mem_alloc(1 << 20)
        pattern = np.full(1 << 20, 0x5A, np.uint8)
        cuda.memcpy_htod(mine, pattern)
        for _ in range(50):
            assert same(slot.run(given), given) > 0.98
            assert same(engine.submit(given).result(), given) > 0.98
        back = np.empty_like(pattern)
        cuda.memcpy_dtoh(back, mine)
        np.testing.assert_array_equal(back, pattern)
        mine.free()
    assert int(values.sum()) == (1 << 20) * ((1 << 20) - 1) // 2


def test_a_closed_engine_gives_its_memory_back():
    import pycuda.driver as cuda

    def free() -> int:
        with open_device().current():
            return cuda.mem_get_info()[0]

    for _ in range(3):
        with load_engine("voc", engine="torch", batch=4) as engine:
            given = np.repeat(guard_pictures(engine.card, most=1)[0], 4, axis=0)
            engine.submit(given).result()
            open_bytes = free()
    before = free()
    assert before >= open_bytes
    with load_engine("voc", engine="torch", batch=4) as engine:
        engine.submit(given).result()
    assert free() >= before - (4 << 20)


def test_compiled_it_answers_the_same():
    given = networks.noise(2, CARD)
    options = {"device": "0", "precision": "fp16", "compile": True}
    with open_module("red_levels", CARD, 2, **options) as engine, bound(engine, 2) as slot:
        assert same(engine.submit(given).result(), given) > 0.98
        plain = slot.run(given)
        replay = slot.context.capture(slot.stream, lambda: slot.context.enqueue(2, slot.stream))
        assert same(plain, given) > 0.98
        assert (slot.run(given, replay) == plain).mean() >= 0.999


# The last one: after a capture that CUDA ended, torch keeps what memory it has.
def test_a_capture_that_fails_leaves_the_stream_usable(engine):
    given = networks.noise(1, CARD)
    with bound(engine) as slot:
        slot.run(given)

        def waits():
            slot.context.enqueue(1, slot.stream)
            slot.stream.synchronize()  # not allowed in a capture

        def breaks():
            slot.context.enqueue(1, slot.stream)
            raise KeyError("ours")

        for work in (waits, breaks):
            with pytest.raises(CaptureError, match="a CUDA graph could not be captured: "):
                slot.context.capture(slot.stream, work)
            assert same(slot.run(given), given) > 0.98
        replay = slot.context.capture(slot.stream, lambda: slot.context.enqueue(1, slot.stream))
        assert same(slot.run(given, replay), given) > 0.98
