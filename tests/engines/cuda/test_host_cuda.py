"""What stands in for PyCUDA notices what a card would, and what none would."""

from __future__ import annotations

import struct
import time

import numpy as np
import pytest

from engines.cuda.kernels import load_or_compile
from engines.cuda.picture import Layout, NetworkInput, Placed


@pytest.fixture
def driver(cuda):
    context = cuda.module.Device(0).retain_primary_context()
    context.push()
    yield cuda.module
    cuda.module.Context.pop()


def test_what_is_written_beside_an_allocation_is_noticed(cuda, host_card):
    memory = cuda.module.mem_alloc(11 * 10 * 3)  # a row too few
    picture = host_card.place(Layout("rgb24", 4, 4))
    host_card.kernels.resize(
        host_card.stream, picture, int(memory), NetworkInput(12, 10, 0, 0, 12, 10, (0, 0, 0))
    )
    host_card.stream.synchronize()
    with pytest.raises(AssertionError, match="wrote beside"):
        memory.free()


def test_arguments_are_those_of_the_kernel(host_card, driver):
    module = driver.module_from_buffer(load_or_compile("8.9"))
    function = module.get_function("resize_rgb").prepare("P2i")
    stream, done = driver.Stream(), driver.Event(driver.event_flags.BLOCKING_SYNC)
    with pytest.raises(struct.error):
        function.prepared_async_call((1, 1), (32, 8, 1), stream, 0, 1)
    with pytest.raises(driver.LogicError, match="invalid argument"):
        function.prepared_async_call((0, 1), (32, 8, 1), stream, 0, 1, 2)
    with pytest.raises(driver.LogicError, match="invalid argument"):
        function.prepared_async_call((1, 1), (64, 32, 1), stream, 0, 1, 2)
    function.prepared_async_call((1, 1), (32, 8, 1), stream, 0, 1, 2)
    done.record(stream)
    with pytest.raises(driver.LogicError, match="not those of the kernel"):
        done.synchronize()
    with pytest.raises(driver.LogicError, match="not found"):
        module.get_function("resize_bgr")


def test_what_is_no_module_is_refused(driver):
    with pytest.raises(driver.LogicError, match="image is invalid"):
        driver.module_from_buffer(b"not a library")


def test_copies_go_to_any_address_of_an_allocation_and_to_no_other(driver):
    stream = driver.Stream()
    memory = driver.mem_alloc(16)
    driver.memcpy_htod_async(int(memory) + 4, np.arange(2, dtype=np.int32), stream)
    got = np.empty(16, np.uint8)
    driver.memcpy_dtoh_async(got, int(memory), stream)
    stream.synchronize()
    assert got.tolist() == [0xAA] * 4 + [0, 0, 0, 0, 1, 0, 0, 0] + [0xAA] * 4
    with pytest.raises(driver.LogicError, match="illegal"):
        driver.memcpy_dtoh_async(got, int(memory) + 1, stream)
    assert int(memory) % 256 == 0
    memory.free()


def test_a_stream_waits_for_what_another_has_done(driver):
    first, second = driver.Stream(), driver.Stream()
    order = []
    first.run(lambda: (time.sleep(0.05), order.append("first")))
    event = driver.Event()
    event.record(first)
    second.wait_for_event(event)
    second.run(lambda: order.append("second"))
    second.synchronize()
    assert order == ["first", "second"]


def test_a_picture_may_lie_anywhere_in_an_allocation(host_card):
    layout = Layout("rgb24", 3, 5)
    block = np.arange(layout.size + 7, dtype=np.uint8)
    address = host_card.upload(block)
    network = NetworkInput(3, 5, 0, 0, 3, 5, (0, 0, 0))
    for offset in range(8):
        got = host_card.resize(Placed(layout, address + offset), network)
        np.testing.assert_array_equal(got.reshape(-1), block[offset : offset + layout.size])
