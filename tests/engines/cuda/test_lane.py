"""The lane's ring on the host: real threads as streams, the real kernels, a table as network."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest

from engines.cuda import lane as lanes
from engines.cuda.kernels import paint_table
from engines.cuda.lane import SLOTS, Form, Lane, Paint, Task
from engines.cuda.picture import Layout, NetworkInput
from engines.errors import EngineError, InferenceError, PictureError
from engines.fake_engine import fake_card
from tests.engines.cuda.host_engine import HostEngine

pytestmark = pytest.mark.timeout(60)
CARD = fake_card(16, 24)
SIZE = (32, 48)
COLORS = np.random.default_rng(1).integers(0, 256, (256, 3), np.uint8)


@pytest.fixture
def machine(cuda, host_graph, host_nvcc):
    return cuda


def paint(share=0.5, line=0):
    return Paint(paint_table(COLORS, np.arange(256) > 0, share), line)


def form(batch=1, size=SIZE, labels=True):
    want = CARD.input
    network = NetworkInput(want.height, want.width, 0, 0, want.height, want.width, (0, 0, 0))
    layout = Layout("rgb24", *size)
    return Form(layout, layout, network, batch=batch, labels=labels)


def picture(number, size=SIZE):
    """A picture of one red value, so that all its labels are `number` modulo the classes."""
    image = np.zeros((*size, 3), np.uint8)
    image[..., 0] = 8 * (number % 21)
    return image


def task(*numbers, paint, size=SIZE):
    outs = [(np.empty((*size, 3), np.uint8),) for _ in numbers]
    return Task([(picture(n, size),) for n in numbers], outs, paint)


def check(numbers, task, found, painted):
    assert len(found) == len(numbers)
    for n, (out,), one in zip(numbers, task.outs, found, strict=True):
        assert (one.small == n % 21).all()
        assert one.full is None or (one.full == n % 21).all()
        share = painted.table[n % 21, 3]
        want = (1 - share) * picture(n) + share * painted.table[n % 21, :3]
        assert np.abs(out - want).max() <= 0.51


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("labels", [True, False])
def test_every_answer_belongs_to_its_pictures(machine, batch, labels):
    rng, dice, look = random.Random(batch), random.Random(2), paint()
    engine = HostEngine(machine, CARD, batch=batch, delay=lambda: dice.random() / 500)
    with Lane(engine, form(batch, labels=labels), look) as lane:
        waiting, at = [], 0
        for _ in range(40):
            numbers = range(at, at + rng.randint(1, batch))
            at = numbers.stop
            given = task(*numbers, paint=look)
            waiting.append((numbers, given, lane.submit(given)))
        rng.shuffle(waiting)
        for numbers, given, submission in waiting:
            check(numbers, given, submission.result(), look)
        assert lane.busy_s > 0
        assert all((found.full is not None) == labels for found in submission.result())


def test_one_graph_a_slot_is_replayed_and_destroyed(machine, host_graph):
    engine, look = HostEngine(machine, CARD), paint()
    with Lane(engine, form(), look) as lane:
        for n in range(30):
            given = task(n, paint=look)
            check([n], given, lane.submit(given).result(), look)
        assert host_graph.launches == 30
        assert host_graph.live == SLOTS
    assert host_graph.live == 0


@pytest.mark.parametrize(
    "call", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"]
)
def test_where_no_graph_can_be_captured_frames_come_all_the_same(machine, host_graph, call):
    host_graph.failing.add(call)
    said, look = [], paint()
    with Lane(HostEngine(machine, CARD), form(), look, say=said.append) as lane:
        for n in range(10):
            given = task(n, paint=look)
            check([n], given, lane.submit(given).result(), look)
        assert not lane.graphs
    assert len(said) == 1
    assert "a CUDA graph could not be captured" in said[0]
    assert host_graph.launches == host_graph.live == 0


def test_waiting_for_the_card_spoils_a_capture_and_nothing_else(machine, host_graph, monkeypatch):
    compute, look, said = lanes._Slot.compute, paint(), []

    def waits(slot, line):
        if slot._stream.capturing is not None:
            slot._stream.synchronize()
        compute(slot, line)

    monkeypatch.setattr(lanes._Slot, "compute", waits)
    with Lane(HostEngine(machine, CARD), form(), look, say=said.append) as lane:
        for n in range(10):
            given = task(n, paint=look)
            check([n], given, lane.submit(given).result(), look)
    assert len(said) == 1
    assert host_graph.launches == 0


def test_a_capture_that_somebody_spoilt_is_tried_again(machine, host_graph, monkeypatch):
    compute, look, said, waiting = lanes._Slot.compute, paint(), [], iter([True])

    def waits(slot, line):
        if slot._stream.capturing is not None and next(waiting, False):
            slot._stream.synchronize()
        compute(slot, line)

    monkeypatch.setattr(lanes._Slot, "compute", waits)
    with Lane(HostEngine(machine, CARD), form(), look, say=said.append) as lane:
        given = task(1, paint=look)
        check([1], given, lane.submit(given).result(), look)
        assert lane.graphs
    assert not said
    assert host_graph.launches == 1


def test_a_new_look_needs_no_new_graph_but_lines_do(machine, host_graph):
    engine = HostEngine(machine, CARD)
    with Lane(engine, form(), paint()) as lane:
        for share, line, graphs in ((0.2, 0, 1), (0.9, 0, 1), (0.9, 3, 2), (0.5, 0, 2)):
            look = paint(share, line)
            for n in range(2 * SLOTS):
                given = task(n, paint=look)
                check([n], given, lane.submit(given).result(), look)
            assert host_graph.live == graphs * SLOTS


def test_nothing_is_allocated_and_nobody_waits_for_a_stream_while_frames_pass(machine):
    engine, look = HostEngine(machine, CARD, batch=2), paint()
    with Lane(engine, form(2), look) as lane:
        for n in range(2 * SLOTS):
            lane.submit(task(n, n + 1, paint=look)).result()
        machine.calls.clear()
        for n in range(50):
            lane.submit(task(n, n + 1, paint=look)).result()
        made = [c for c in machine.calls if "Alloc" in c or "Create" in c or "Stream" in c]
        assert set(made) == {"cuStreamWaitEvent"}
        assert "cuLaunchKernel" not in machine.calls


def test_frames_go_up_and_down_while_others_are_computed(machine):
    """The network takes 20 ms; were all done in turn, three frames could not be in flight."""
    order, look = [], paint()
    engine = HostEngine(machine, CARD, delay=lambda: 0.02)
    with Lane(engine, form(), look) as lane:
        lane.submit(task(0, paint=look)).result()
        upload = lane._up.run

        def noted(job):
            upload(lambda: (job(), order.append(("up", engine.runs))))

        lane._up.run = noted
        for submission in [lane.submit(task(n, paint=look)) for n in range(SLOTS)]:
            submission.result()
    # Every one is up before the second is through the network.
    assert len(order) >= SLOTS
    assert max(runs for _, runs in order) <= 3


@pytest.mark.parametrize("batch", [1, 4])
def test_a_run_that_fails_fails_alone(machine, batch):
    engine, look = HostEngine(machine, CARD, batch=batch, fail_on={3, 4, 9}), paint()
    with Lane(engine, form(batch), look) as lane:
        failed = []
        for n in range(12):
            numbers = range(n, n + batch)
            given = task(*numbers, paint=look)
            submission = lane.submit(given)
            try:
                check(numbers, given, submission.result(), look)
            except InferenceError:
                failed.append(n)
        assert failed == [3, 4, 9]


@pytest.mark.parametrize(
    "call",
    ["cuStreamCreate", "cuEventCreate", "cuMemAlloc", "cuMemHostAlloc", "cuModuleLoadDataEx"],
)
def test_what_was_made_is_given_back_where_the_card_refuses(machine, host_graph, call):
    look = paint()
    Lane(HostEngine(machine, CARD), form(), look).close()
    machine.failing[call] = "out of memory"
    with pytest.raises(Exception, match="out of memory"):
        Lane(HostEngine(machine, CARD), form(), look)
    assert machine.live == host_graph.live == 0


def test_a_network_that_finds_no_room_leaves_nothing_behind(machine):
    engine = HostEngine(machine, CARD)
    engine.refuse_after = 1
    with pytest.raises(EngineError, match="no room"):
        Lane(engine, form(), paint())
    assert engine.contexts == machine.live == 0


def test_with_room_for_fewer_slots_a_lane_has_those(machine):
    engine, look, said = HostEngine(machine, CARD), paint(), []
    engine.refuse_after = 2
    with Lane(engine, form(), look, say=said.append) as lane:
        assert lane.depth == 2
        for n in range(6):
            given = task(n, paint=look)
            check([n], given, lane.submit(given).result(), look)
    assert said == ["note: the card has room for 2 batches at a time: no room on the card"]


@pytest.mark.parametrize(
    "call", ["cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuEventRecord", "cuStreamWaitEvent"]
)
def test_a_call_that_fails_belongs_to_its_frame(machine, call):
    look = paint()
    with Lane(HostEngine(machine, CARD), form(), look) as lane:
        lane.submit(task(1, paint=look)).result()
        machine.failing[call] = "the card says no"
        with pytest.raises(InferenceError, match=r"could not start .*the card says no"):
            lane.submit(task(2, paint=look))
        for n in range(2 * SLOTS):
            given = task(n, paint=look)
            check([n], given, lane.submit(given).result(), look)


def test_closing_waits_and_answers_can_still_be_had(machine):
    engine, look = HostEngine(machine, CARD, delay=lambda: 0.01), paint()
    lane = Lane(engine, form(), look)
    given = [task(n, paint=look) for n in range(3)]
    submissions = [lane.submit(each) for each in given]
    lane.close()
    assert machine.live == 0
    for n in range(3):
        check([n], given[n], submissions[n].result(), look)
    with pytest.raises(EngineError, match="closed"):
        lane.submit(given[0])
    lane.close()


def test_other_pictures_are_refused(machine):
    look = paint()
    with Lane(HostEngine(machine, CARD), form(), look) as lane:
        with pytest.raises(PictureError, match="1 to 1 pictures, not 2"):
            lane.submit(task(1, 2, paint=look))
        with pytest.raises(PictureError, match="takes planes of"):
            lane.submit(task(1, paint=look, size=(32, 50)))


def test_two_threads_share_a_lane(machine):
    engine, look, wrong = HostEngine(machine, CARD, delay=lambda: 0.0005), paint(), []

    def work(begin):
        for n in range(begin, begin + 40):
            given = task(n, paint=look)
            try:
                check([n], given, lane.submit(given).result(), look)
            except BaseException as error:
                wrong.append(error)

    with Lane(engine, form(), look) as lane:
        threads = [threading.Thread(target=work, args=(100 * i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
