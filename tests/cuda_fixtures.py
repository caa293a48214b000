"""Fixtures: kernels compiled for the host, at work on the PyCUDA of the host."""

from __future__ import annotations

import os
import shutil
import sys

import pytest

from engines.cuda.device import open_device
from tests.engines.cuda import host_nvcc as program
from tests.engines.cuda.card import HostCard
from tests.engines.cuda.host_graph import HostGraph


@pytest.fixture(scope="session")
def _host_nvcc(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("g++ is needed to compile the kernels for the host")
    folder = tmp_path_factory.mktemp("nvcc")
    return program.install(folder), tmp_path_factory.mktemp("kernels")


@pytest.fixture
def host_nvcc(_host_nvcc, monkeypatch):
    """An nvcc on PATH that compiles for the host, and a cache of its own, kept for the session:
    real cards must not find what it compiled. Gives the log of its calls.
    """
    log, cache = _host_nvcc
    monkeypatch.setenv("PATH", f"{log.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STREAMSEG_CACHE", str(cache))
    return log


@pytest.fixture
def host_card(cuda, host_nvcc):
    """Kernels on the host, with their device's context current."""
    device = open_device(0)
    with device.current():
        card = HostCard(cuda, device)
        yield card
        card.free()


@pytest.fixture
def host_graph(cuda, monkeypatch):
    """cuda-bindings on the host; every graph must be destroyed when the test ends."""
    graphs = HostGraph(cuda)
    modules: dict[str, object] = {}
    graphs.install(modules)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    yield graphs
    assert graphs.live == 0, "a graph was not destroyed"
