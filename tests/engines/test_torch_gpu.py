"""torch_gpu.py without a GPU: every name of torch's that it uses, and what it does on stand-ins.

tests/gpu/test_torch.py does the same on a card.
"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engines import torch_engine, torch_gpu, torch_network  # noqa: E402
from engines.cuda.device import open_device  # noqa: E402
from engines.cuda.memory import Staging  # noqa: E402
from engines.cuda.network import DeviceEngine  # noqa: E402
from engines.errors import CaptureError, EngineError  # noqa: E402
from engines.torch_network import PictureNetwork  # noqa: E402
from tests import networks  # noqa: E402
from tests.engines.host_torch import HostTorch, accepts  # noqa: E402
from tests.engines.modules import make, open_module  # noqa: E402

CARD = networks.make_card(classes=networks.LEVELS)
SHAPE = (CARD.input.height, CARD.input.width)


def names_of_torch(module) -> set[str]:
    """`torch.cuda.Stream` and the like, as the module's source has them."""
    found = set()
    for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if parts and isinstance(node, ast.Name) and node.id == "torch":
            found.add(".".join(reversed(parts)))
    return found


@pytest.mark.parametrize("module", [torch_engine, torch_gpu, torch_network])
def test_torch_has_every_name_that_is_used(module):
    names = names_of_torch(module)
    assert len(names) > 3
    for name in names:
        value = torch
        for part in name.split("."):
            value = getattr(value, part)


def test_torch_takes_the_arguments_that_are_given():
    cuda = torch.cuda
    accepts(cuda.ExternalStream.__new__, cuda.ExternalStream, 4096, device="cuda:0")
    accepts(cuda.Stream.__new__, cuda.Stream, "cuda:0")
    accepts(cuda.CUDAGraph.capture_begin, None, pool=(0, 1), capture_error_mode="thread_local")
    for plain in (cuda.CUDAGraph.capture_end, cuda.CUDAGraph.replay, cuda.CUDAGraph.reset):
        assert callable(plain)
    accepts(cuda.Event.__new__, cuda.Event, enable_timing=True)
    accepts(cuda.Event.__new__, cuda.Event, blocking=True)
    accepts(cuda.Event.elapsed_time, None, None)
    accepts(cuda.synchronize, "cuda:0")
    accepts(cuda.get_device_capability, 0)
    assert "thread_local" in inspect.getdoc(cuda.graph)


@pytest.fixture
def host(cuda, monkeypatch):
    fake = HostTorch(cuda)
    monkeypatch.setattr(torch_gpu, "torch", fake)
    return fake


def open_gpu(batch=4):
    network = PictureNetwork(make("red_levels"), CARD, torch.float32)
    return torch_gpu.TorchGpuEngine(network, CARD, "fp32", 0, batch=batch)


class Bound:
    """Memory and a stream of PyCUDA's, and the network bound to them; in the device's context."""

    def __init__(self, engine, most):
        import pycuda.driver as driver

        self.pictures, self.labels = Staging((most, *SHAPE, 3)), Staging((most, *SHAPE))
        self.stream = driver.Stream()
        self.context = engine.bind(self.pictures.address, self.labels.address, most)

    def run(self, given, start=None):
        self.pictures.host[: len(given)] = given
        self.pictures.upload(len(given), self.stream)
        (start or (lambda: self.context.enqueue(len(given), self.stream)))()
        self.labels.download(len(given), self.stream)
        self.stream.synchronize()
        return np.array(self.labels.host[: len(given)])

    def free(self):
        self.context.free()
        self.pictures.free()
        self.labels.free()


@pytest.fixture
def bound(host):
    with open_gpu() as engine, engine.device.current():
        found = Bound(engine, 4)
        yield found
        found.free()


def test_it_works_by_submit(host):
    with open_gpu() as engine:
        assert engine.info.device == "GPU 0 (Stand-in GPU)"
        pictures = [networks.noise(1 + n % 4, CARD, n) for n in range(3 * engine.depth)]
        pending = [engine.submit(each) for each in pictures]
        for each, waiting in zip(pictures, pending, strict=True):
            np.testing.assert_array_equal(waiting.result(), networks.red_level(each))
        assert engine.busy_s > 0


def test_it_is_a_device_engine_where_pycuda_is(host):
    with open_gpu() as engine:
        assert isinstance(engine, DeviceEngine)
        assert engine.device is open_device(0)
    with open_module("red_levels", CARD, device="cpu") as engine:
        assert not isinstance(engine, DeviceEngine)


def test_it_works_by_submit_without_pycuda(monkeypatch, cuda):
    monkeypatch.setattr(torch_gpu, "torch", HostTorch(cuda))
    cuda.failing["cuInit"] = "no driver"
    with open_gpu() as engine:
        assert not isinstance(engine, DeviceEngine)
        pictures = networks.noise(1, CARD)
        labels = engine.submit(pictures).result()
        np.testing.assert_array_equal(labels, networks.red_level(pictures))


def test_a_bound_network_reads_and_writes_the_memory_it_is_given(bound):
    for count in (1, 4, 2):
        given = networks.noise(count, CARD, count)
        np.testing.assert_array_equal(bound.run(given), networks.red_level(given))


def test_more_pictures_than_the_engine_takes_cannot_be_bound(host):
    with open_gpu(batch=2) as engine, engine.device.current():
        with pytest.raises(EngineError, match=r"bound to 3 pictures.*1\.\.2"):
            engine.bind(0, 0, 3)


def test_memory_that_torch_copied_is_refused(host):
    own = host.as_tensor

    def copied(memory, device=None):
        tensor = own(memory, device)
        tensor._address += 1
        return tensor

    host._own["as_tensor"] = copied
    with open_gpu() as engine, engine.device.current():
        memory = Staging((4, *SHAPE, 3))
        with pytest.raises(EngineError, match="torch copied the memory at 0x"):
            engine.bind(memory.address, memory.address, 4)
        memory.free()


def test_kernels_are_searched_for_once_for_each_number_of_pictures(bound):
    seen = []
    network = bound.context._network

    def watched(pictures):
        seen.append(torch.backends.cudnn.benchmark)
        return network(pictures)

    bound.context._network = watched
    for count in (1, 1, 3, 1, 3):
        bound.run(networks.noise(count, CARD))
    assert seen == [True, False, True, False, False]
    assert not torch.backends.cudnn.benchmark


def test_a_graph_is_captured_and_replayed_on_the_lanes_stream(bound, host):
    given = networks.noise(4, CARD)
    bound.run(given)
    host.calls.clear()
    started = []

    def work():
        assert host.capturing
        started.append(1)
        bound.context.enqueue(4, bound.stream)

    replay = bound.context.capture(bound.stream, work)
    assert host.calls == ["begin thread_local", "end"]
    replay()
    replay()
    assert host.calls[2:] == ["replay", "replay"]
    assert started == [1]
    bound.context.free()
    assert host.calls[4:] == ["reset"]


def test_a_capture_that_fails_leaves_the_stream_usable(bound, host):
    given = networks.noise(2, CARD)
    expected = bound.run(given)
    import pycuda.driver as driver

    for error in (RuntimeError("not permitted"), driver.LogicError("cuLaunchKernel failed")):

        def work(error=error):
            bound.context.enqueue(2, bound.stream)
            raise error

        with pytest.raises(CaptureError, match=f"a CUDA graph could not be captured: {error}"):
            bound.context.capture(bound.stream, work)
        assert host.calls[-1] == "end"
        assert not host.capturing
        assert host._current is None
        np.testing.assert_array_equal(bound.run(given), expected)
    with pytest.raises(KeyboardInterrupt):
        bound.context.capture(bound.stream, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert not host.capturing


def test_a_capture_that_cuda_ends_says_why_and_keeps_the_graph(bound, host, monkeypatch):
    monkeypatch.setattr(torch_gpu, "_SPOILT", kept := [])
    given = networks.noise(1, CARD)
    expected = bound.run(given)
    with pytest.raises(CaptureError, match="not permitted when stream is capturing"):
        bound.context.capture(
            bound.stream, host.cuda.ExternalStream(bound.stream.handle).synchronize
        )
    assert len(kept) == 1  # torch's allocator still asks it
    np.testing.assert_array_equal(bound.run(given), expected)
    bound.context.capture(bound.stream, lambda: bound.context.enqueue(1, bound.stream))()
    assert len(kept) == 1


def test_a_network_that_has_not_run_is_not_captured(bound):
    with pytest.raises(CaptureError, match="has not run yet"):
        bound.context.capture(bound.stream, lambda: None)


def test_tf32_is_off_while_an_engine_in_fp32_is_open(host):
    before = torch.backends.cudnn.allow_tf32
    assert before  # torch's default, or this test would show nothing
    first, second = open_gpu(), open_gpu()
    assert not torch.backends.cudnn.allow_tf32
    first.close()
    assert not torch.backends.cudnn.allow_tf32
    second.close()
    assert torch.backends.cudnn.allow_tf32


def test_an_engine_that_fails_to_open_leaves_the_settings_as_they_were(host, monkeypatch):
    monkeypatch.setattr(torch_gpu, "_Slot", lambda *_: (_ for _ in ()).throw(RuntimeError("full")))
    with pytest.raises(EngineError, match="no room on GPU 0 for small: full"):
        open_gpu()
    assert torch.backends.cudnn.allow_tf32
