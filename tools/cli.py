"""The `streamseg` program: how it starts, and how it ends.

Exit codes: 0 done, 1 failed (one line on stderr), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main() -> None:
    """Runs the program and exits with its code."""
    # Before anything that takes time is imported: a Ctrl-C in an import would end in a traceback.
    # tools/interrupt.py takes over once there is something to close.
    # A signal that the caller's shell has us ignore (nohup, a background job) stays ignored.
    ours = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    for number in ours:
        signal.signal(number, _quit)
    try:
        _run()
    finally:
        # All is done and said; a signal must not make a failure of it while Python shuts down.
        for number in ours:
            signal.signal(number, signal.SIG_IGN)


def _run() -> None:
    from tools.commands import app
    from tools.errors import error_line

    debug = "--debug" in sys.argv
    try:
        app(standalone_mode=True)
    except Exception as error:
        if debug:
            raise
        print(f"error: {error_line(error)}", file=sys.stderr)
        sys.exit(1)


def _quit(number: int, frame: FrameType | None) -> None:
    os._exit(130)


if __name__ == "__main__":
    main()
