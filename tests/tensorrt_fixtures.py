"""Fixtures: what the real bindings say, and a TensorRT of each version on the host."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from engines.cuda import device as cuda_device
from tests.engines.cuda.host_cuda import HostCuda
from tests.engines.tensorrt.bindings import VERSIONS, read_bindings
from tests.engines.tensorrt.standin import StandIn


@pytest.fixture(scope="session")
def facts_of(tmp_path_factory):
    """Version -> the facts of its real bindings, read once."""
    known: dict[str, dict] = {}

    def get(name: str) -> dict:
        if name not in known:
            if shutil.which("gcc") is None or shutil.which("nm") is None:
                pytest.skip("gcc and nm are needed to load TensorRT's bindings")
            known[name] = read_bindings(name, tmp_path_factory.mktemp(f"trt{name}"))
        return known[name]

    return get


@pytest.fixture
def cuda(monkeypatch):
    """PyCUDA on the host; what is allocated must be freed when the test ends."""
    host = HostCuda()
    host.install(_modules(monkeypatch))
    cuda_device._open.cache_clear()
    yield host
    cuda_device._open.cache_clear()
    assert host.live == 0, "device or pinned memory was not freed"
    assert not host.stack, "a context was left pushed"


@pytest.fixture(params=VERSIONS)
def trt(request, facts_of, cuda, monkeypatch):
    """TensorRT on the host, of each version."""
    stand = StandIn(facts_of(request.param), cuda)
    stand.install(_modules(monkeypatch))
    return stand


@pytest.fixture
def trt11(facts_of, cuda, monkeypatch):
    """TensorRT 11 on the host."""
    stand = StandIn(facts_of("11.4"), cuda)
    stand.install(_modules(monkeypatch))
    return stand


@pytest.fixture
def facts_file(facts_of, tmp_path):
    """The facts of TensorRT 11 in a file, for processes of their own."""
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(facts_of("11.4")))
    return path


def _modules(monkeypatch):
    """A dictionary whose entries go to sys.modules for the test."""

    class Modules(dict):
        def __setitem__(self, name, module):
            monkeypatch.setitem(sys.modules, name, module)

    return Modules()
