"""CUDA graphs: our calls against the real cuda-bindings, as far as they go without a driver."""

from __future__ import annotations

import re

import pytest

from tests.engines.cuda.host_graph import CALLS

driver = pytest.importorskip("cuda.bindings.driver")


@pytest.mark.parametrize("name", CALLS)
def test_the_calls_are_there_and_take_what_we_give(name):
    head = getattr(driver, name).__doc__.splitlines()[0]
    given = re.match(rf"{name}\((.*)\)", head)[1]
    assert len(given.split(",")) == CALLS[name]


def test_the_names_that_we_use_are_there():
    assert int(driver.CUstream(4096)) == 4096
    assert int(driver.CUresult.CUDA_SUCCESS) == 0
    mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    assert mode in driver.CUstreamCaptureMode
