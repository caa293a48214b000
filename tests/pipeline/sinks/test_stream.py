"""Streams out, to real receivers: what arrives, and what happens while nobody receives."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.errors import SinkError
from pipeline.roles import Stage
from pipeline.runner import Pipeline
from pipeline.sinks import open_output
from pipeline.sinks.protocols import _has_srt, find_protocol, without_secrets
from pipeline.sinks.stream import StreamSink
from pipeline.sources.synthetic import SyntheticSource, draw_number, read_number
from pipeline.stages import pace

pytestmark = pytest.mark.timeout(60)
ROOT = Path(__file__).parents[3]
SIZE = (96, 128)


def paint(frames):
    for frame in frames:
        frame.picture = frame.image
        yield frame


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Receiver:
    """A process that receives; its lines are gathered by a thread."""

    def __init__(self, url, *options):
        quick = ["analyzeduration=100000", "probesize=8192"]
        command = [sys.executable, "-m", "tests.pipeline.sinks.receive", url, *options, *quick]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.numbers = []
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._read)
        self.thread.start()
        assert self.ready.wait(20)
        time.sleep(0.3)  # from there to the open port

    def _read(self):
        for line in self.process.stdout:
            self.ready.set()
            if line.startswith("frame "):
                self.numbers.append(int(line.split()[1]))
        self.ready.set()

    def wait_for(self, count, seconds=15):
        deadline = time.monotonic() + seconds
        while len(self.numbers) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(self.numbers) >= count, f"{len(self.numbers)} frames arrived"

    def end(self):
        self.process.kill()
        self.process.wait()
        self.thread.join()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.end()


class Running:
    """A pipeline in a thread: paced numbers to sinks, until it is stopped."""

    def __init__(self, *sinks, fps=25, count=3000, size=SIZE, paint=paint):
        source = SyntheticSource(*size, count=count, fps=fps)
        self.pipeline = Pipeline(source, [pace(), Stage("paint", paint)], sinks)
        self.thread = threading.Thread(target=self.pipeline.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.pipeline.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def said():
    return []


def sink_to(url, said):
    info = SyntheticSource(*SIZE, count=1, fps=25).info
    return StreamSink(url, info, encoder="libx264", quality=12, say=said.append)


def address(scheme):
    kind = socket.SOCK_DGRAM if scheme in ("udp", "srt") else socket.SOCK_STREAM
    path = {"rtsp": "/live", "rtmp": "/live/key"}.get(scheme, "")
    return f"{scheme}://127.0.0.1:{free_port(kind)}{path}"


LISTEN = {
    "udp": ["fflags=nobuffer", "timeout=20000000"],
    "rtmp": ["listen=1"],
    "rtsp": ["rtsp_flags=listen", "rtsp_transport=tcp", "listen_timeout=30"],
}


@pytest.mark.parametrize("scheme", ["udp", "rtmp", "rtsp"])
def test_pictures_arrive_in_order(scheme, said):
    url = address(scheme)
    sink = sink_to(url, said)
    with Receiver(url, *LISTEN[scheme]) as receiver:
        with Running(sink) as running:
            receiver.wait_for(30)
        numbers = list(receiver.numbers)
    assert numbers == sorted(set(numbers))
    assert sink.output.frames >= len(numbers)
    assert sink.failure is None
    ledger = running.pipeline.ledger
    assert ledger.unaccounted == 0
    assert ledger.skipped.get(scheme, 0) + sink.output.frames == ledger.delivered
    assert not said


class Keeper:
    """A file sink that notes what it gets."""

    policy = "block"
    name = "keeper"
    advice = ""

    def __init__(self):
        self.seen = []

    def run(self, frames):
        for frame in frames:
            self.seen.append(frame.index)
            yield frame


def test_a_receiver_that_goes_and_comes_back_is_found_again(said):
    url = address("rtmp")
    sink, keeper = sink_to(url, said), Keeper()
    with Running(sink, keeper) as running:
        with Receiver(url, "listen=1") as first:
            first.wait_for(10)
        time.sleep(1.0)
        back = time.monotonic()
        with Receiver(url, "listen=1") as second:
            second.wait_for(10)
        assert time.monotonic() - back < 12  # a longest pause, and what a slow machine adds
        assert second.numbers[0] > first.numbers[-1]
    assert keeper.seen == list(range(len(keeper.seen)))
    assert len(keeper.seen) == running.pipeline.ledger.delivered
    assert running.pipeline.ledger.skipped["rtmp"] > 10
    away = [line for line in said if line.startswith("warning: ")]
    assert all("tried again" in line for line in away)
    assert "sending again after" in said[-1]
    assert len(said) == 2 * len(away) <= 4  # said once an outage, not once a try


def noise(frames):
    """What no encoder makes small: the system's own buffers hold megabytes."""
    random = np.random.default_rng(0)
    for frame in frames:
        frame.picture = random.integers(0, 256, frame.image.shape, np.uint8)
        draw_number(frame.picture, frame.index)
        yield frame


def test_a_receiver_that_does_not_read_is_given_up(said):
    """It takes the connection and the handshake, and then stands still."""
    url = address("rtmp")
    sink, keeper = sink_to(url, said), Keeper()
    with Receiver(url, "listen=1") as receiver:
        with Running(sink, keeper, size=(480, 640), paint=noise):
            receiver.wait_for(3)
            os.kill(receiver.process.pid, signal.SIGSTOP)
            deadline = time.monotonic() + 40
            while not said and time.monotonic() < deadline:
                time.sleep(0.05)
            seen = len(keeper.seen)
            time.sleep(0.5)
            assert len(keeper.seen) > seen
    assert said[0].startswith(f"warning: {without_secrets(url)}: it takes no data")
    assert keeper.seen == list(range(len(keeper.seen)))


def test_nobody_there_from_beginning_to_end(said):
    url = address("rtsp")
    sink, keeper = sink_to(url, said), Keeper()
    with Running(sink, keeper, count=40, fps=20) as running:
        running.thread.join(20)
    assert keeper.seen == list(range(40))
    assert len(said) == 1
    assert "Connection refused" in said[0]
    assert str(sink.failure) == f"nothing was sent to {url}: Connection refused"
    assert running.pipeline.ledger.skipped == {"rtsp": 40}
    assert running.pipeline.ledger.delivered == 40


def test_ctrl_c_does_not_wait_for_a_receiver_that_is_away(said):
    with Running(sink_to(address("rtmp"), said)) as running:
        time.sleep(1.5)
        begun = time.monotonic()
        running.pipeline.stop()
        running.thread.join(20)
    assert time.monotonic() - begun < 5


@pytest.mark.skipif(
    not (shutil.which("ffmpeg") and _has_srt(shutil.which("ffmpeg"))),
    reason="needs an ffmpeg program with SRT",
)
def test_srt_arrives(said, tmp_path):
    url, path = address("srt"), tmp_path / "got.ts"
    sink = sink_to(url, said)
    command = ["ffmpeg", "-v", "error", "-i", f"{url}?mode=listener", "-c", "copy", str(path)]
    receiver = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        with Running(sink):
            deadline = time.monotonic() + 25
            while sink.output.frames < 60 and time.monotonic() < deadline:
                time.sleep(0.05)
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            receiver.wait(8)  # the sender says goodbye
        receiver.kill()
        receiver.wait()
    with av.open(str(path)) as file:
        numbers = [read_number(f.to_ndarray(format="rgb24")) for f in file.decode(video=0)]
    assert len(numbers) >= 30
    assert numbers == sorted(set(numbers))
    assert sink.output.frames >= 60


def test_without_a_program_that_has_it_srt_is_refused(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SinkError, match="there is no ffmpeg program here; install it"):
        find_protocol("srt://127.0.0.1:9000?passphrase=hidden")


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("ftp://host/x", "nothing is sent by ftp; allowed: rtsp://"),
        ("rtsp:///x", "no receiver is named"),
        ("udp://239.0.0.1", "no port is named"),
        ("rtsp://user:hidden@:8554/x", "no receiver is named"),
    ],
)
def test_addresses_that_cannot_be_meant(url, part):
    with pytest.raises(SinkError) as caught:
        open_output(url, SyntheticSource(*SIZE))
    assert part in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://me:hidden@cam.local/stream",
        "rtsp://hidden@cam.local/stream",
        "srt://host:9000?mode=caller&passphrase=hidden&latency=20",
        "rtmp://live.example.com/app/hidden",
        "rtmps://live.example.com:443/app/hidden?token=hidden2",
        "cannot open 'http://a/x.m3u8?Auth_Token=hidden': 403",
    ],
)
def test_secrets_are_not_printed(url):
    assert "hidden" not in without_secrets(url)
    assert "***" in without_secrets(url)


def test_what_is_no_secret_stays():
    for text in ("rtsp://cam.local:554/stream?channel=1", "udp://239.0.0.1:5000?ttl=2", "a@b.c"):
        assert without_secrets(text) == text
