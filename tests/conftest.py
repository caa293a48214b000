"""What every test gets: a cache of its own session, and a check that its threads have ended."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.tensorrt_fixtures"]

# A machine under load is slow, not wrong; pytest-timeout ends what hangs.
settings.register_profile("loaded", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("loaded")


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(session_cache, monkeypatch):
    """Tests neither read nor fill the user's cache."""
    monkeypatch.setenv("STREAMSEG_CACHE", str(session_cache))


@pytest.fixture(autouse=True)
def no_thread_left():
    """A thread that outlives its test would keep a real program from ending."""
    with suppress(ImportError):  # a GPU machine may do without it
        import openvino  # noqa: F401  (starts a thread of its own, once)

    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 2
    for thread in set(threading.enumerate()) - before:
        if not thread.daemon:
            thread.join(max(0.0, deadline - time.monotonic()))
            assert not thread.is_alive(), f"thread {thread.name!r} still runs after the test"
