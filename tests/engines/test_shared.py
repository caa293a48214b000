"""Several pipelines on one engine: turns, batches, failures and ends. See also test_contract.py."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from engines.errors import EngineError, InferenceError
from engines.fake_engine import FakeEngine
from engines.shared import SharedEngine
from tests import networks

pytestmark = pytest.mark.timeout(30)

CARD = networks.make_card(classes=networks.LEVELS)


def picture(seed):
    return networks.noise(1, CARD, seed)


def answer(pictures):
    return pictures[..., 0] // 8 % len(CARD.classes)


class Recorder(FakeEngine):
    """Remembers what it was given, and waits for `go` before it takes anything."""

    def __init__(self, **options):
        super().__init__(CARD, **options)
        self.go = threading.Event()
        self.given = []

    def submit(self, pictures):
        self.go.wait(10)
        self.given.append(pictures.copy())
        return super().submit(pictures)


def whose(batch):
    """The marks of the pictures in a submission; 0 is the first, which held the others up."""
    return [int(p[0, 0, 0]) for p in batch]


def marked(number):
    made = picture(number).copy()
    made[0, 0, 0, 0] = number
    return made


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def asking(view, numbers, answers):
    """A thread that submits as fast as it may, and then wants the answers."""

    def run():
        asked = [(marked(n), view.submit(marked(n))) for n in numbers]
        answers.extend((sent, pending.result()) for sent, pending in asked)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_each_pipeline_gets_its_own_answers():
    answers = [[], [], []]
    with FakeEngine(CARD, batch=4) as engine, SharedEngine(engine, 3) as shared:
        threads = [
            asking(view, range(100 * i, 100 * i + 40), box)
            for i, (view, box) in enumerate(zip(shared.views, answers, strict=True))
        ]
        for thread in threads:
            thread.join()
    for box in answers:
        assert len(box) == 40
        for sent, labels in box:
            np.testing.assert_array_equal(labels, answer(sent))


def test_who_waits_is_served_in_turns_however_fast_others_ask():
    with Recorder(depth=2) as engine, SharedEngine(engine, 3) as shared:
        greedy, modest, silent = shared.views
        box = []
        thread = asking(greedy, range(1, 9), box)
        until(lambda: greedy.waiting)
        asked = asking(modest, [100, 101], box)
        until(lambda: modest.waiting)
        engine.go.set()
        thread.join()
        asked.join()
        order = [n for batch in engine.given for n in whose(batch)]
    # The dispatcher held the greedy one's first when the modest one came.
    assert order.index(100) <= 2
    assert order.index(101) <= 5
    assert sorted(order) == [*range(1, 9), 100, 101]
    assert silent.pictures == 0


def test_what_waits_together_goes_together():
    with Recorder(batch=4) as engine, SharedEngine(engine, 3, gather_s=5) as shared:
        engine.go.set()
        box = []
        threads = [asking(view, [10 + i], box) for i, view in enumerate(shared.views)]
        for thread in threads:
            thread.join(4)  # not the five seconds: everyone has asked
            assert not thread.is_alive()
        assert [sorted(whose(batch)) for batch in engine.given] == [[10, 11, 12]]


def test_a_picture_waits_for_company_no_longer_than_told():
    with Recorder(batch=4) as engine, SharedEngine(engine, 2, gather_s=0.05) as shared:
        engine.go.set()
        begun = time.perf_counter()
        shared.views[0].submit(marked(1)).result()
        assert time.perf_counter() - begun >= 0.05
        assert [len(batch) for batch in engine.given] == [1]


def test_nobody_waits_for_one_who_has_left():
    with Recorder(batch=2) as engine, SharedEngine(engine, 2, gather_s=20) as shared:
        engine.go.set()
        shared.views[1].close()
        labels = shared.views[0].submit(marked(1)).result()
        np.testing.assert_array_equal(labels, answer(marked(1)))
        with pytest.raises(EngineError, match="closed"):
            shared.views[1].submit(marked(2))


def test_a_failure_in_a_batch_is_the_others_loss_of_time_only():
    """The fake fails by number: the batch of both, then the first one's own try."""
    with FakeEngine(CARD, batch=2, fail_on={0, 1}) as engine:
        with SharedEngine(engine, 2, gather_s=5) as shared:
            pending = [view.submit(marked(i + 1)) for i, view in enumerate(shared.views)]
            with pytest.raises(InferenceError):
                pending[0].result()
            np.testing.assert_array_equal(pending[1].result(), answer(marked(2)))


def test_busy_seconds_are_shared_by_pictures():
    with FakeEngine(CARD, delay_s=0.002, parallel=1) as engine, SharedEngine(engine, 2) as shared:
        one, two = shared.views
        for view, count in ((one, 3), (two, 1)):
            for seed in range(count):
                view.submit(picture(seed)).result()
        assert one.busy_s + two.busy_s == pytest.approx(engine.busy_s)
        assert one.busy_s == pytest.approx(3 * two.busy_s)


def test_an_engine_that_is_closed_tells_those_who_ask():
    with FakeEngine(CARD) as engine, SharedEngine(engine, 2) as shared:
        engine.close()
        with pytest.raises(EngineError, match="closed"):
            shared.views[0].submit(picture(0)).result()
