"""How long threads waited for a core, as Linux takes it down (/proc/*/schedstat)."""

from __future__ import annotations

from pathlib import Path

_TASKS = Path("/proc/self/task")


def core_wait_s() -> float | None:
    """Seconds that the calling thread could have run so far and had no core; None if not known."""
    return _read(Path("/proc/thread-self"))


class OthersCoreWait:
    """How long the threads that are there when it is made wait for a core from then on: an engine's
    among them, those of the stages not yet.
    """

    def __init__(self) -> None:
        self._begun = _all_s()

    @property
    def so_far_s(self) -> float | None:
        """The sum, without threads that have ended meanwhile; None if not known."""
        if not self._begun:
            return None
        now = _all_s()
        return sum(now[i] - self._begun[i] for i in now.keys() & self._begun.keys())


def _all_s() -> dict[str, float]:
    """Of each thread of this process, by the system's number of it."""
    try:
        waits = {task.name: _read(task) for task in _TASKS.iterdir()}
    except OSError:
        return {}
    return {number: wait for number, wait in waits.items() if wait is not None}


def _read(task: Path) -> float | None:
    try:  # "nanoseconds at work, nanoseconds waiting, times"
        return int((task / "schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None  # another system, a kernel without it, or the thread has just ended
