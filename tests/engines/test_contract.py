"""What every engine promises; each test runs on all of them."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from engines.engine import Engine
from engines.errors import EngineError, InferenceError, ModelError, PictureError
from engines.fake_engine import FakeEngine, fake_card
from engines.shared import SharedEngine
from tests import networks
from tests.engines.modules import open_module

pytestmark = pytest.mark.timeout(60)

CARD = networks.make_card(classes=networks.LEVELS)
# TensorRT runs on the host here (tests/engines/tensorrt/standin.py), in FP32, because FP16 rounds
# at the borders between two levels; `make test-gpu` runs this contract on a card.
NAMES = ("fake", "openvino", "onnxruntime", "tensorrt", "torch", "shared")


def open_engine(name: str, model: Any = None, card: Any = CARD, batch: int = 1) -> Engine:
    if name == "fake":
        return FakeEngine(card, batch=batch)
    if name == "shared":
        return open_shared(card, batch)
    if name == "torch":
        return open_module("red_levels", card, batch)
    return open_graph(name, networks.wrapped(model or networks.red_levels(), card), card, batch)


def open_graph(name: str, graph: bytes, card: Any, batch: int = 1) -> Engine:
    if name == "openvino":
        from engines.openvino_engine import OpenVinoEngine

        # Some processors compute in bf16 by themselves, and neighbouring levels then meet.
        return OpenVinoEngine(graph, card, precision="fp32", batch=batch)
    if name == "tensorrt":
        return open_plan(graph, card, batch)
    pytest.importorskip("onnxruntime")
    from engines.onnxruntime_engine import OnnxRuntimeEngine

    return OnnxRuntimeEngine(graph, card, batch=batch)


def open_shared(card: Any, batch: int) -> Engine:
    """One view of two, on a fake engine; closing it ends the sharing and the engine."""
    engine = FakeEngine(card, batch=batch)
    shared = SharedEngine(engine, 2)
    view = shared.__enter__().views[0]
    leave = view.close

    def close() -> None:
        view.close = leave  # the sharing's end closes its views
        shared.__exit__(None, None, None)
        engine.close()

    view.close = close
    return view


def open_plan(graph: bytes, card: Any, batch: int) -> Engine:
    from engines.cuda.device import open_device
    from engines.tensorrt.build import build_plan
    from engines.tensorrt.options import PlanOptions
    from engines.tensorrt.runtime import TensorRtEngine

    device = open_device()
    options = PlanOptions(precision="fp32", batch=batch, batch_max=batch)
    plan, _ = build_plan(graph, options, device)
    return TensorRtEngine(plan, card, device, precision="fp32")


@dataclass
class Kind:
    """An implementation, and what it must answer."""

    name: str

    def open(self, batch: int = 1) -> Engine:
        return open_engine(self.name, batch=batch)

    def answer(self, pictures: np.ndarray) -> np.ndarray:
        if self.name in ("fake", "shared"):
            return pictures[..., 0] // 8 % len(CARD.classes)
        return networks.red_level(pictures)


@pytest.fixture(params=NAMES)
def kind(request) -> Kind:
    if request.param == "tensorrt" and "STREAMSEG_GPU" not in os.environ:
        request.getfixturevalue("trt11")
    if request.param == "torch":  # here: a test may open it in a thread of its own
        pytest.importorskip("torch")
    return Kind(request.param)


def pictures_of(count: int, batch: int = 1) -> list[np.ndarray]:
    return [networks.noise(batch, CARD, seed) for seed in range(count)]


def in_thread(work: Callable[[], Any]) -> Callable[[float], Any]:
    """Starts `work` elsewhere; calling what comes back waits for its result or error."""
    box: list[Any] = []

    def run() -> None:
        try:
            box.append((work(), None))
        except Exception as error:
            box.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()

    def wait(seconds: float) -> Any:
        thread.join(seconds)
        assert not thread.is_alive(), "it hangs"
        result, error = box[0]
        if error is not None:
            raise error
        return result

    return wait


@pytest.mark.parametrize("order", ["as submitted", "reverse", "shuffled"])
def test_each_submission_gets_its_own_labels(kind, order):
    with kind.open() as engine:
        pictures = pictures_of(engine.depth * 3 + 1)
        pending = [engine.submit(p) for p in pictures]
        numbers = list(range(len(pictures)))
        if order == "reverse":
            numbers.reverse()
        if order == "shuffled":
            random.Random(4).shuffle(numbers)
        for i in numbers:
            np.testing.assert_array_equal(pending[i].result(), kind.answer(pictures[i]))


def test_labels_are_uint8_class_ids_of_the_cards_size(kind):
    with kind.open() as engine:
        labels = engine.submit(networks.noise(1, CARD)).result()
        assert labels.dtype == np.uint8
        assert labels.shape == (1, CARD.input.height, CARD.input.width)
        assert labels.max() < len(CARD.classes)


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_a_batch_holds_one_picture_up_to_its_size(kind, batch):
    with kind.open(batch) as engine:
        assert engine.batch == batch
        for count in range(1, batch + 1):
            pictures = networks.noise(count, CARD, count)
            np.testing.assert_array_equal(engine.submit(pictures).result(), kind.answer(pictures))
        with pytest.raises(PictureError, match=rf"1\.\.{batch}"):
            engine.submit(networks.noise(batch + 1, CARD))


def bad_pictures() -> dict[str, Any]:
    good = networks.noise(1, CARD)
    return {
        "float": good.astype(np.float32),
        "signed": good.astype(np.int8),
        "no batch": good[0],
        "empty batch": good[:0],
        "other height": good[:, 1:].copy(),
        "other width": good[:, :, 1:].copy(),
        "one channel": good[..., :1].copy(),
        "NCHW": np.ascontiguousarray(good.transpose(0, 3, 1, 2)),
        "mirrored": good[:, :, ::-1],
        "every other column": np.repeat(good, 2, axis=2)[:, :, ::2],
        "a list": good.tolist(),
        "None": None,
    }


@pytest.mark.parametrize("what", bad_pictures())
def test_other_pictures_are_refused_and_said_so(kind, what):
    with kind.open() as engine:
        with pytest.raises(PictureError, match=r"uint8 \(1\.\.1, 12, 16, 3\)"):
            engine.submit(bad_pictures()[what])
        good = networks.noise(1, CARD)
        np.testing.assert_array_equal(engine.submit(good).result(), kind.answer(good))


def test_read_only_pictures_are_taken(kind):
    pictures = networks.noise(1, CARD)
    pictures.flags.writeable = False
    with kind.open() as engine:
        np.testing.assert_array_equal(engine.submit(pictures).result(), kind.answer(pictures))


def test_pictures_are_not_changed(kind):
    pictures = networks.noise(1, CARD)
    before = pictures.copy()
    with kind.open() as engine:
        engine.submit(pictures).result()
    np.testing.assert_array_equal(pictures, before)


def test_submissions_that_nobody_asks_about_do_not_stop_the_engine(kind):
    def work() -> np.ndarray:
        with kind.open() as engine:
            for pictures in pictures_of(engine.depth * 5):
                engine.submit(pictures)
            return engine.submit(networks.noise(1, CARD, 99)).result()

    labels = in_thread(work)(30)
    np.testing.assert_array_equal(labels, kind.answer(networks.noise(1, CARD, 99)))


def test_a_dropped_array_stays_alive_while_the_engine_reads_it(kind):
    with kind.open() as engine:
        pending = [engine.submit(networks.noise(1, CARD, i)) for i in range(engine.depth)]
        for i, waiting in enumerate(pending):
            expected = kind.answer(networks.noise(1, CARD, i))
            np.testing.assert_array_equal(waiting.result(), expected)


def test_a_result_may_be_asked_again_and_by_any_thread(kind):
    pictures = networks.noise(1, CARD)
    with kind.open() as engine:
        pending = engine.submit(pictures)
        waits = [in_thread(pending.result) for _ in range(4)]
        answers = [wait(10) for wait in waits] + [pending.result(), pending.result()]
    for labels in answers:
        np.testing.assert_array_equal(labels, kind.answer(pictures))


def test_a_result_is_the_askers_own(kind):
    # The engine's next run must not write into labels that somebody still reads.
    first, *others = pictures_of(12)
    with kind.open() as engine:
        labels = engine.submit(first).result()
        for pictures in others:
            engine.submit(pictures).result()
        np.testing.assert_array_equal(labels, kind.answer(first))


def test_many_threads_may_submit(kind):
    with kind.open() as engine:

        def work(seed: int) -> None:
            for i in range(10):
                pictures = networks.noise(1, CARD, 100 * seed + i)
                labels = engine.submit(pictures).result()
                np.testing.assert_array_equal(labels, kind.answer(pictures))

        waits = [in_thread(lambda seed=seed: work(seed)) for seed in range(4)]
        for wait in waits:
            wait(30)


def test_close_waits_for_what_is_in_flight(kind):
    with kind.open() as engine:
        pictures = pictures_of(engine.depth)
        pending = [engine.submit(p) for p in pictures]
    busy_s = engine.busy_s
    assert busy_s > 0
    for one, waiting in zip(pictures, pending, strict=True):
        np.testing.assert_array_equal(waiting.result(), kind.answer(one))
    assert engine.busy_s == busy_s  # nothing was left to be done after the block


def test_a_closed_engine_says_so(kind):
    engine = kind.open()
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.submit(networks.noise(1, CARD))


def test_an_error_inside_the_block_closes_too(kind):
    with pytest.raises(KeyError), kind.open() as engine:
        raise KeyError
    with pytest.raises(EngineError, match="closed"):
        engine.submit(networks.noise(1, CARD))


def test_busy_seconds_grow_with_the_work_and_not_faster_than_the_clock(kind):
    with kind.open() as engine:
        assert engine.busy_s == 0
        begun = time.perf_counter()
        seen = [0.0]
        for pictures in pictures_of(3):
            engine.submit(pictures).result()
            seen.append(engine.busy_s)
        assert seen == sorted(set(seen))
        assert seen[-1] <= time.perf_counter() - begun


def test_the_engine_says_what_it_is(kind):
    with kind.open() as engine:
        assert engine.info.name == {"shared": "fake"}.get(kind.name, kind.name)
        assert engine.info.precision == "fp32"
        assert engine.info.version
        assert engine.info.device
        assert engine.depth >= 2
        assert engine.card is CARD


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_a_failure_belongs_to_its_submission_on_a_real_runtime(name):
    good = networks.noise(1, CARD)
    good[..., 1] = 0
    with open_engine(name, networks.poisoned(CARD)) as engine:
        for number in range(2 * engine.depth):  # every slot fails once, and works again
            bad = good.copy()
            bad[..., 1].flat[: number + 1] = 255
            failing, working = engine.submit(bad), engine.submit(good)
            for _ in range(2):
                with pytest.raises(InferenceError, match=name):
                    failing.result()
            np.testing.assert_array_equal(
                working.result(), networks.red_level(good), err_msg=str(number)
            )


def test_a_failure_belongs_to_its_submission_on_torch():
    good = networks.noise(1, CARD)
    good[..., 1] = 0
    bad = good.copy()
    bad[..., 1].flat[0] = 255
    with open_module("poisoned", CARD, device="cpu") as engine:
        for _ in range(2 * engine.depth):
            failing, working = engine.submit(bad), engine.submit(good)
            for _ in range(2):
                with pytest.raises(InferenceError, match="torch failed on a picture: poisoned"):
                    failing.result()
            np.testing.assert_array_equal(working.result(), networks.red_level(good))


def test_a_failure_belongs_to_its_submission_on_the_fake():
    with FakeEngine(CARD, fail_on={1, 4}) as engine:
        pictures = pictures_of(7)
        pending = [engine.submit(p) for p in pictures]
        for i, waiting in enumerate(pending):
            if i in (1, 4):
                with pytest.raises(InferenceError, match=f"submission {i} was told to fail"):
                    waiting.result()
            else:
                assert waiting.result().any()


def test_close_survives_a_failure_that_nobody_asked_about():
    with FakeEngine(CARD, fail_on={0}) as engine:
        pending = engine.submit(networks.noise(1, CARD))
    with pytest.raises(InferenceError):
        pending.result()


class SlowEngine(FakeEngine):
    """Each run waits for `open_gate(number)`, so that a test decides who finishes when."""

    def __init__(self, count: int, **options: Any) -> None:
        super().__init__(CARD, **options)
        self.gates = [threading.Event() for _ in range(count)]

    def _run(self, number: int, pictures: np.ndarray) -> tuple[np.ndarray, float]:
        assert self.gates[number].wait(20)
        return super()._run(number, pictures)


def test_out_of_order_completion_keeps_labels_with_their_submissions():
    pictures = pictures_of(4)
    with SlowEngine(4, depth=4, parallel=4) as engine:
        pending = [engine.submit(p) for p in pictures]
        for i in reversed(range(4)):
            engine.gates[i].set()
            labels = in_thread(pending[i].result)(10)  # while the earlier ones still run
            np.testing.assert_array_equal(labels, pictures[i][..., 0] // 8 % len(CARD.classes))


def test_one_submission_more_than_depth_waits_for_the_oldest():
    pictures = pictures_of(4)
    with SlowEngine(4, depth=3, parallel=4) as engine:
        for i in range(3):
            in_thread(lambda i=i: engine.submit(pictures[i]))(5)
        done = threading.Event()
        wait = in_thread(lambda: (engine.submit(pictures[3]), done.set())[0])
        assert not done.wait(0.2)
        engine.gates[0].set()
        pending = wait(10)
        for gate in engine.gates:
            gate.set()
        assert pending.result().any()


def test_close_waits_for_a_slow_run():
    engine = SlowEngine(1)
    pending = engine.submit(networks.noise(1, CARD))
    done = threading.Event()
    wait = in_thread(lambda: (engine.close(), done.set()))
    assert not done.wait(0.2)
    engine.gates[0].set()
    wait(10)
    assert pending.result().any()


def test_the_fake_counts_parallel_runs_once():
    begun = time.perf_counter()
    with FakeEngine(fake_card(), depth=4, parallel=2, delay_s=0.02) as engine:
        pending = [engine.submit(networks.noise(1, engine.card)) for _ in range(6)]
        for waiting in pending:
            waiting.result()
        assert 6 * 0.02 / 2 * 0.99 < engine.busy_s < time.perf_counter() - begun


@pytest.mark.parametrize("stride", [1, 4])
def test_the_two_runtimes_agree(stride):
    card = networks.make_card(64, 96, 6, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    model = networks.deep(classes=6, stride=stride)
    pictures = [networks.noise(1, card, i) for i in range(3)]
    answers = []
    for name in ("openvino", "onnxruntime"):
        with open_engine(name, model, card) as engine:
            pending = [engine.submit(p) for p in pictures]
            answers.append(np.stack([p.result() for p in pending]))
    assert len(np.unique(answers[0])) >= 4  # or agreeing would mean nothing
    assert (answers[0] == answers[1]).mean() >= 0.999


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
@pytest.mark.parametrize(("fixed", "batch"), [(1, 2), (3, 1), (3, 2)])
def test_a_network_with_another_fixed_batch_runs_or_is_refused_at_once(name, fixed, batch):
    # Never only at the first picture, when sources and sinks are open.
    try:
        engine = open_engine(name, networks.red_levels(batch=fixed), batch=batch)
    except ModelError as error:
        assert f"exactly {fixed}" in str(error)  # noqa: PT017
        return
    with engine:
        for count in range(1, batch + 1):
            pictures = networks.noise(count, CARD, count)
            labels = engine.submit(pictures).result()
            np.testing.assert_array_equal(labels, networks.red_level(pictures))


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_a_graph_that_the_runtime_does_not_know_is_a_model_error(name):
    model = networks.wrap(networks.red_levels(), CARD)
    model.graph.node[2].op_type, model.graph.node[2].domain = "Nonsense", "example"
    model.opset_import.add(domain="example", version=1)
    with pytest.raises(ModelError, match="small"):
        open_graph(name, model.SerializeToString(), CARD)
