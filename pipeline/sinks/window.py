"""A window on the screen that shows the newest frames and takes keys."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path

import numpy as np

from pipeline.channel import Policy
from pipeline.errors import SinkError
from pipeline.frame import Frame
from pipeline.roles import Frames
from pipeline.sinks.images import encode_picture, write_whole
from pipeline.stages.look import Controls

_STEP = 0.1  # of the overlay's strength

# Seconds that a display may take to open a window, and to show a picture.
_OPEN_S, _SHOW_S = 30.0, 10.0

_ADVICE = "leave out --show, or write a file with -o"


class WindowSink:
    """Shows `frame.picture` in a window, which opens at once and is there until the run has ended.

    The window lives in a process of its own (pipeline/screen.py says why). Keys change `controls`;
    `on_quit` is called when the user wants the end. With `stay` it waits for that after the last
    frame. `say` is told what the picture itself does not show. Raises SinkError where there can be
    no window.
    """

    policy: Policy = "drop_oldest"
    reads_labels = False
    name = "window"
    url = "a window; q quits, h names the other keys"
    """What is said of it where others name their address."""
    advice = "showing is the limit: a smaller window or source is faster"
    output = None

    def __init__(
        self,
        title: str,
        controls: Controls,
        *,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.notes: list[str] = []
        self.stay = False
        self.on_quit: Callable[[], None] = lambda: None
        self.quit = False
        """Whether the user has asked for the end."""
        self._title, self._controls, self._say = title, controls, say
        self._answered = threading.Event()
        self._seen = False  # what the answer was
        self._shown: Frame | None = None
        self._over = threading.Event()
        check_environment("--show")
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.screen", str(theirs.fileno()), title],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the run
            )
        self._wait_for_window()

    def run(self, frames: Frames) -> Frames:
        """Yields each frame that has been shown."""
        listener = threading.Thread(target=self._listen, name="window keys")
        listener.start()
        try:
            for frame in frames:
                if self._offer(frame):
                    self._shown = frame
                    yield frame
                if self._over.is_set():
                    return
            if self.stay:
                self._over.wait()
        finally:
            self._over.set()
            self.close()
            listener.join()
            self._connection.close()

    def interrupt(self) -> None:
        """Ends the waiting for the user, from any thread."""
        self._over.set()
        self._answered.set()

    def close(self) -> None:
        """Takes the window away."""
        with suppress(OSError):
            self._connection.send(None)
        if self._process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.5)
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def _wait_for_window(self) -> None:
        with suppress(EOFError, OSError):
            if self._connection.poll(_OPEN_S):
                self._connection.recv()
                return
        self._process.kill()
        said = self._process.communicate()[1].decode(errors="replace")
        self._connection.close()
        raise SinkError(f"{explain_failure(said, '--show')}: {_ADVICE}")

    def _offer(self, frame: Frame) -> bool:
        """Whether the window has shown it; waits for that, but not for ever."""
        assert frame.picture is not None
        self._answered.clear()
        picture = np.ascontiguousarray(frame.picture)
        try:
            self._connection.send(picture.shape[:2])
            self._connection.send_bytes(picture.data.cast("B"))
        except OSError:
            return False  # `_listen` finds out why
        if not self._answered.wait(_SHOW_S) and not self._over.is_set():
            self._lose("it does not answer any more")
        return self._seen and not self._over.is_set()

    def _listen(self) -> None:
        """Answers and keys, until the window is gone."""
        from pipeline.screen import PASSED, QUIT, SHOWN

        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                if not self._over.is_set():
                    self._lose("its display has closed it")
                return
            if message in (SHOWN, PASSED):
                self._seen = message == SHOWN
                self._answered.set()
            elif message == QUIT:
                self.quit = True
                self.interrupt()
                self.on_quit()
            else:
                self._press(message)

    def _lose(self, why: str) -> None:
        self._say(f"warning: the window is gone ({why}); the run goes on without it")
        self.interrupt()

    def _press(self, letter: str) -> None:
        look = self._controls.look
        if letter in "+=":
            self._controls.change(overlay=min(1.0, round(look.overlay + _STEP, 2)))
        elif letter in "-_":
            self._controls.change(overlay=max(0.0, round(look.overlay - _STEP, 2)))
        elif letter == "l":
            self._controls.change(legend=not look.legend)
        elif letter == "c":
            self._controls.change(contours=not look.contours)
        elif letter == "s":
            self._save()

    def _save(self) -> None:
        frame = self._shown
        if frame is None:
            return
        path = _free_name(f"{_plain(self._title)}_{frame.index:06d}")
        try:
            write_whole(path, encode_picture(frame, ".png"))
        except OSError as error:  # a full disk is no reason to end a run
            self._say(f"warning: {path} cannot be written: {error.strerror}")
        else:
            self._say(f"saved   {path}")


def check_environment(what: str) -> None:
    """Raises SinkError where plainly no window can be opened for `what`."""
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise SinkError(
            f"there is no display for {what} (neither DISPLAY nor WAYLAND_DISPLAY is set); by SSH, "
            "`ssh -X` lends yours"
        )


def explain_failure(said: str, what: str) -> str:
    """One line of what a window's process said before it ended."""
    if "not implemented" in said:
        return (
            f"this OpenCV was built without windows, which {what} needs: uninstall "
            "opencv-python-headless and install opencv-python"
        )
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return f"the display for {what} cannot be opened ({lines[0] if lines else 'no answer'})"


def _plain(title: str) -> str:
    return re.sub(r"[^\w.-]+", "_", Path(title).stem).strip("_") or "frame"


def _free_name(stem: str) -> Path:
    path, number = Path(f"{stem}.png"), 1
    while path.exists():
        number += 1
        path = Path(f"{stem}-{number}.png")
    return path
