"""Real peers for live sources: servers and publishers, each a process or thread of its own."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from engines.fake_engine import FakeEngine, fake_card
from pipeline.errors import PipelineError
from pipeline.runner import Pipeline
from pipeline.sources.synthetic import read_number
from pipeline.stages import colorize, infer, preprocess
from tests.clips import numbered

HEIGHT, WIDTH = 96, 128
FPS = 30
ROUND = 600
"""Pictures in a round of the camera's: their numbers begin anew after so many."""
SYSTEM_PYTHON = "/usr/bin/python3"
CARD = fake_card(9, 16)


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_units(
    path: Path, height: int = HEIGHT, width: int = WIDTH, count: int = ROUND, gop: int = 15
) -> Path:
    """Numbered pictures as H.264 access units, for rtsp_server.py."""
    context: Any = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base, context.framerate = Fraction(1, FPS), FPS
    context.gop_size, context.max_b_frames = gop, 0
    options = "sliced-threads=0:scenecut=0:aud=0"
    context.options = {
        "preset": "ultrafast", "tune": "zerolatency", "crf": "14", "x264-params": options,
    }  # fmt: skip
    with path.open("wb") as file:
        for i in [*range(count), None]:
            frame = None
            if i is not None:
                frame = av.VideoFrame.from_ndarray(numbered(i, height, width), format="rgb24")
                frame = frame.reformat(format="yuv420p")
                frame.pts = i
            for packet in context.encode(frame):
                data = bytes(packet)
                file.write(struct.pack(">?I", packet.is_keyframe, len(data)) + data)
    return path


@functools.cache
def missing_rtsp_server() -> str:
    """Why GStreamer's RTSP server cannot be run here; empty where it can."""
    lines = (
        "import gi; gi.require_version('Gst', '1.0'); gi.require_version('GstRtspServer', '1.0')",
        "from gi.repository import Gst, GstRtspServer; Gst.init(None)",
        "assert all(map(Gst.ElementFactory.find, ('appsrc', 'h264parse', 'rtph264pay')))",
    )
    if not Path(SYSTEM_PYTHON).exists():
        return f"no {SYSTEM_PYTHON} here"
    done = subprocess.run([SYSTEM_PYTHON, "-c", "\n".join(lines)], capture_output=True, check=False)
    return "" if done.returncode == 0 else "no GStreamer RTSP server here (CONTRIBUTING.md)"


def needs_ffmpeg(*protocols: str) -> None:
    """Skips the test where the ffmpeg program is missing, or does not speak one of these."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg program here")
    listed = subprocess.run(
        ["ffmpeg", "-hide_banner", "-protocols"], capture_output=True, text=True
    )
    for protocol in protocols:
        if protocol not in listed.stdout.split():
            pytest.skip(f"the ffmpeg program here does not speak {protocol}")


class RtspServer:
    """GStreamer's RTSP server with a camera behind it, which can be killed, stopped and started."""

    def __init__(
        self,
        *files: Path,
        user: str = "",
        password: str = "",
        udp_only: bool = False,
        fps: int = FPS,
    ) -> None:
        self.port, self.epoch, self.fps = free_port(), time.monotonic(), fps
        self._order = {
            "port": self.port, "files": [str(f) for f in files], "fps": fps, "epoch": self.epoch,
            "user": user, "password": password, "udp_only": udp_only,
        }  # fmt: skip
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/camera"

    def start(self) -> float:
        """Returns when it listens: monotonic seconds."""
        script = str(Path(__file__).with_name("rtsp_server.py"))
        self.process = subprocess.Popen(
            [SYSTEM_PYTHON, script, json.dumps(self._order)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        return time.monotonic()

    def say(self, line: str) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def send(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def age_s(self, number: int) -> float:
        """How long ago the camera took the picture with that number (at most half a round)."""
        newest = (time.monotonic() - self.epoch) * self.fps
        return ((newest - number + ROUND / 2) % ROUND - ROUND / 2) / self.fps

    def __enter__(self) -> RtspServer:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
        self.kill()


@contextmanager
def ffmpeg(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """The ffmpeg program, quiet; killed at the end."""
    process = subprocess.Popen(
        ["ffmpeg", "-hide_banner", "-loglevel", "error", "-nostdin", *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        pass


@contextmanager
def http_server(folder: Path, handler: type[_Silent] = _Silent) -> Iterator[str]:
    """Serves a folder; gives http://HOST:PORT."""
    made = functools.partial(handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), made) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class Files(_Silent):
    """Files as web servers give them: from any byte on. Half of the answers break off."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data, first = path.read_bytes(), 0
        if wanted := self.headers.get("Range"):
            first = int(wanted.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - first))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(data[first : first + max(30_000, len(data) // 3)])
        self.close_connection = True


class Jpegs(_Silent):
    """A camera that sends numbered JPEGs, 20 a second, without end, on any path."""

    def do_GET(self) -> None:
        import cv2

        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        self.end_headers()
        try:
            for number in range(2000):
                data = cv2.imencode(".jpg", numbered(number, HEIGHT, WIDTH))[1].tobytes()
                head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")
                time.sleep(0.05)
        except OSError:
            pass


class Run:
    """A pipeline over a live source, in a thread, and what came out of it."""

    def __init__(self, source: Any, sinks: Any = (), **options: Any) -> None:
        self.source = source
        self.got: list[tuple[float, int, int, int]] = []
        """(monotonic seconds, index, pts, number in the picture) of each frame."""
        self.sizes: set[tuple[int, ...]] = set()
        self.error: BaseException | None = None
        self._engine = FakeEngine(CARD)
        stages = [preprocess(CARD), infer(self._engine), colorize(CARD)]
        self.pipeline = Pipeline(source, stages, sinks, **options)
        self._thread = threading.Thread(target=self._run, name="run")
        self._thread.start()

    def _run(self) -> None:
        try:
            with self._engine:
                self.pipeline.run(self._take)
        except PipelineError as error:
            self.error = error

    def _take(self, frame: Any) -> None:
        self.sizes.add(frame.image.shape)
        self.got.append((time.monotonic(), frame.index, frame.pts, read_number(frame.image)))

    def more(self, count: int = 5, timeout: float = 20) -> float:
        """Waits for so many frames from now on; returns when the first of them came."""
        before = len(self.got)
        wait_until(lambda: len(self.got) >= before + count or self.over, timeout)
        assert not self.over, self.error
        return self.got[before][0]

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def stop(self) -> float:
        """Stops it; returns how many seconds that took."""
        begun = time.monotonic()
        self.pipeline.stop()
        self._thread.join(20)
        assert self.over
        return time.monotonic() - begun

    def wait(self, timeout: float = 20) -> None:
        self._thread.join(timeout)
        assert self.over

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def check(self) -> None:
        """What holds however the run went."""
        ledger = self.pipeline.ledger
        assert ledger.unaccounted == 0, ledger
        assert ledger.captured > 0
        stamps = [pts for _, _, pts, _ in self.got]
        assert stamps == sorted(set(stamps))
        indexes = [index for _, index, _, _ in self.got]
        assert indexes == sorted(set(indexes))


def wait_until(true: Callable[[], bool], timeout: float = 20) -> float:
    """Polls; returns when it came true, monotonic seconds."""
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)
    return time.monotonic()
