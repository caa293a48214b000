"""The hand-over between two threads, alone and against a plain model."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.channel import Channel
from pipeline.errors import StoppedError

pytestmark = pytest.mark.timeout(30)
POLICIES = ("block", "drop_oldest")
SOON_S = 0.1


class Call(threading.Thread):
    """One call in a thread of its own; `wait` gives its result or raises its error."""

    def __init__(self, work, *args):
        super().__init__(daemon=True)
        self._work, self._args = work, args
        self._outcome = (None, None)
        self.start()

    def run(self):
        try:
            self._outcome = (self._work(*self._args), None)
        except BaseException as error:
            self._outcome = (None, error)

    def waits(self):
        self.join(SOON_S)
        return self.is_alive()

    def wait(self):
        self.join(10)
        assert not self.is_alive(), "it hangs"
        if self._outcome[1] is not None:
            raise self._outcome[1]
        return self._outcome[0]


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_channel_without_room_is_refused(capacity):
    with pytest.raises(ValueError, match=f"at least 1 item, not {capacity}"):
        Channel(capacity)


@pytest.mark.parametrize("policy", POLICIES)
def test_items_come_in_the_order_they_went(policy):
    channel = Channel(3, policy)
    for i in range(3):
        channel.put(i)
    assert len(channel) == 3
    assert [channel.get() for _ in range(3)] == [0, 1, 2]
    assert (channel.accepted, channel.taken, channel.dropped) == (3, 3, 0)


def test_a_full_channel_makes_put_wait_until_there_is_room():
    channel = Channel(2)
    channel.put(0)
    channel.put(1)
    call = Call(channel.put, 2)
    assert call.waits()
    assert (len(channel), channel.accepted) == (2, 2)
    assert channel.get() == 0
    call.wait()
    assert [channel.get(), channel.get()] == [1, 2]


def test_drop_oldest_never_waits_and_keeps_the_newest():
    channel = Channel(2, "drop_oldest")
    for i in range(5):
        channel.put(i)
    assert (len(channel), channel.accepted, channel.dropped) == (2, 5, 3)
    assert [channel.get(), channel.get()] == [3, 4]
    assert channel.put_wait_s == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_an_empty_channel_makes_get_wait(policy):
    channel = Channel(2, policy)
    call = Call(channel.get)
    assert call.waits()
    channel.put("item")
    assert call.wait() == "item"


def test_waits_are_measured_on_the_side_that_waits():
    channel = Channel(1)
    taking = Call(channel.get)
    time.sleep(0.1)
    channel.put(0)
    taking.wait()
    assert 0.08 < channel.get_wait_s < 1
    assert channel.put_wait_s == 0
    waited = channel.get_wait_s
    channel.put(1)
    putting = Call(channel.put, 2)
    time.sleep(0.1)
    channel.get()
    putting.wait()
    assert 0.08 < channel.put_wait_s < 1
    assert channel.get_wait_s == waited


def test_what_does_not_wait_costs_no_wait():
    channel = Channel(4)
    for i in range(100):
        channel.put(i)
        channel.get()
    assert (channel.put_wait_s, channel.get_wait_s) == (0, 0)


@pytest.mark.parametrize("policy", POLICIES)
def test_after_the_end_what_is_there_can_still_be_had(policy):
    channel = Channel(3, policy)
    channel.put(0)
    channel.put(1)
    channel.end()
    assert list(channel) == [0, 1]
    for _ in range(2):  # and the end stays the end
        with pytest.raises(EOFError):
            channel.get()


@pytest.mark.parametrize("policy", POLICIES)
def test_put_after_the_end_is_refused_and_drops_nothing(policy):
    channel = Channel(1, policy)
    channel.put(0)
    channel.end()
    with pytest.raises(StoppedError):
        channel.put(1)
    assert (channel.accepted, channel.dropped, list(channel)) == (1, 0, [0])


def test_the_end_wakes_all_who_wait_for_an_item():
    channel = Channel(1)
    calls = [Call(channel.get) for _ in range(3)]
    assert all(call.waits() for call in calls)
    channel.end()
    for call in calls:
        with pytest.raises(EOFError):
            call.wait()


def test_the_end_wakes_who_waits_for_room():
    channel = Channel(1)
    channel.put(0)
    call = Call(channel.put, 1)
    assert call.waits()
    channel.end()
    with pytest.raises(StoppedError):
        call.wait()
    assert list(channel) == [0]


@pytest.mark.parametrize("side", ["put", "get"])
def test_stop_wakes_all_who_wait_and_the_time_counts(side):
    channel = Channel(1)
    if side == "put":
        channel.put(0)
    calls = [Call(channel.put, i) if side == "put" else Call(channel.get) for i in range(3)]
    assert all(call.waits() for call in calls)
    channel.stop()
    for call in calls:
        with pytest.raises(StoppedError):
            call.wait()
    assert (channel.put_wait_s if side == "put" else channel.get_wait_s) > 3 * SOON_S * 0.5


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("ended", ["before", "after", "never"])
def test_once_stopped_both_sides_know_at_once_and_items_can_be_counted(policy, ended):
    channel = Channel(2, policy)
    channel.put(0)
    channel.put(1)
    if ended == "before":
        channel.end()
    channel.stop()
    if ended == "after":
        channel.end()
    for _ in range(2):
        with pytest.raises(StoppedError):
            channel.get()
        with pytest.raises(StoppedError):
            channel.put(2)
    with pytest.raises(StoppedError):
        list(channel)
    assert (len(channel), channel.accepted, channel.taken, channel.dropped) == (2, 2, 0, 0)


class Model:
    """What a channel must do, in the plainest words; None where it would wait."""

    def __init__(self, capacity, policy):
        self.capacity, self.policy = capacity, policy
        self.items, self.ended, self.stopped = [], False, False
        self.accepted = self.taken = self.dropped = 0

    def put(self, item):
        if self.stopped or self.ended:
            return "stopped"
        if len(self.items) == self.capacity:
            if self.policy == "block":
                return None
            del self.items[0]
            self.dropped += 1
        self.items.append(item)
        self.accepted += 1
        return "put"

    def get(self):
        if self.stopped:
            return "stopped"
        if not self.items:
            return "end" if self.ended else None
        self.taken += 1
        return self.items.pop(0)


STEPS = ["put", "put", "put", "get", "get", "get", "end", "stop"]


@given(
    capacity=st.integers(1, 4),
    policy=st.sampled_from(POLICIES),
    steps=st.lists(st.sampled_from(STEPS), max_size=40),
)
def test_it_does_what_the_plain_model_does(capacity, policy, steps):
    model, channel = Model(capacity, policy), Channel(capacity, policy)
    for number, step in enumerate(steps):
        if step == "put":
            expected = model.put(number)
            if expected is not None:  # else the channel would wait, rightly
                try:
                    channel.put(number)
                    assert expected == "put"
                except StoppedError:
                    assert expected == "stopped"
        elif step == "get":
            expected = model.get()
            if expected is not None:
                try:
                    assert channel.get() == expected
                except EOFError:
                    assert expected == "end"
                except StoppedError:
                    assert expected == "stopped"
        elif step == "end":
            channel.end()
            model.ended = True
        else:
            channel.stop()
            model.stopped = True
        assert len(channel) == len(model.items)
        counts = (channel.accepted, channel.taken, channel.dropped)
        assert counts == (model.accepted, model.taken, model.dropped)
        assert channel.accepted == channel.taken + channel.dropped + len(channel)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("capacity", [1, 3])
def test_many_threads_lose_nothing_and_get_nothing_twice(policy, capacity):
    channel = Channel(capacity, policy)
    each, puts, gets = 300, 4, 3

    def produce(who):
        for i in range(each):
            channel.put((who, i))

    producers = [Call(produce, who) for who in range(puts)]
    consumers = [Call(lambda: list(channel)) for _ in range(gets)]
    for call in producers:
        call.wait()
    channel.end()
    taken = [call.wait() for call in consumers]
    everything = [item for part in taken for item in part]
    assert len(set(everything)) == len(everything) == channel.taken
    assert channel.accepted == each * puts == channel.taken + channel.dropped
    if policy == "block":
        assert channel.dropped == 0
    for part in taken:  # to each consumer, each producer's items come in order
        for who in range(puts):
            numbers = [i for w, i in part if w == who]
            assert numbers == sorted(numbers)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_stop_in_the_middle_of_traffic_ends_everybody_and_the_counts_agree(policy):
    for delay_s in (0, 0.0005, 0.002, 0.01):
        channel = Channel(2, policy)

        def produce(channel=channel):
            while True:
                channel.put(0)

        def consume(channel=channel):
            while True:
                channel.get()

        calls = [Call(produce), Call(produce), Call(consume)]
        time.sleep(delay_s)
        channel.stop()
        for call in calls:
            with pytest.raises(StoppedError):
                call.wait()
        assert channel.accepted == channel.taken + channel.dropped + len(channel)
