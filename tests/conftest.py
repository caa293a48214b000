"""What every test gets: a cache of its own session, a check that its threads have ended and, where
it looks at the clock, three tries.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.cuda_fixtures", "tests.tensorrt_fixtures"]

# A machine under load is slow, not wrong; pytest-timeout ends what hangs.
settings.register_profile("loaded", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("loaded")

# Tests that measure time or meet real peers: a shared machine that stands still for a moment fails
# them. What is wrong fails three times, too.
_LOOK_AT_THE_CLOCK = (
    "engines/test_shared.py",
    "pipeline/sinks/test_hls.py",
    "pipeline/sinks/test_stream.py",
    "pipeline/sinks/test_window.py",
    "pipeline/sinks/web/",
    "pipeline/sources/live/",
    "pipeline/test_freshness.py",
    "pipeline/test_lane.py",
    "pipeline/test_mosaic.py",
    "pipeline/test_pace.py",
    "pipeline/test_stats.py",
    "pipeline/test_trace.py",
    "tools/bench/",
    "tools/test_glass.py",
    "tools/test_interrupt.py",
    "tools/test_live.py",
    "tools/test_several.py",
    "tools/test_start.py",
    "tools/test_viewing.py",
    "tools/test_web.py",
)


def pytest_collection_modifyitems(config, items):
    """Puts files with slow tests first, so that none is left for one process alone at the end, and
    gives those that look at the clock their tries, where the plug-in for it is installed.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    if not config.pluginmanager.hasplugin("rerunfailures"):
        return
    tests = Path(__file__).parent
    for item in items:
        if item.path.relative_to(tests).as_posix().startswith(_LOOK_AT_THE_CLOCK):
            item.add_marker(pytest.mark.flaky(reruns=2, reruns_delay=1))


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
