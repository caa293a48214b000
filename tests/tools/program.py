"""The program as its users run it: a process of its own, real files, real signals."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import yaml

from tests import networks

PROGRAM = [sys.executable, "-m", "tools.cli"]

# A network whose answer can be told from the picture: a class for red, green and blue each, and
# background for what is gray. Scores are 1x1 convolutions of the pixel, 0..1.
CLASSES = ("background", "red", "green", "blue")
SIZE = (24, 32)
_SCORES = np.array([[0, 0, 0], [1, -0.5, -0.5], [-0.5, 1, -0.5], [-0.5, -0.5, 1]])
_BIAS = np.array([0.25, 0, 0, 0])

_NOTES = ("source  ", "model   ", "engine  ", "output  ", "preparing ", "refine  ")


@dataclass(frozen=True)
class Done:
    """How a run of the program ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def notes(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith(_NOTES)]

    @property
    def rest(self) -> list[str]:
        """The lines on stderr that are no notes about what will happen."""
        return [line for line in self.err.splitlines() if not line.startswith(_NOTES)]

    def ledger(self) -> dict[str, int]:
        """The line `frames captured 5 = delivered 5 + dropped 0 + failed 0`, checked."""
        (line,) = [line for line in self.out.splitlines() if line.startswith("frames ")]
        number = r"(\d+)(?: \([^)]*\))?"
        found = re.match(
            f"frames captured {number} = delivered {number} \\+ dropped {number} "
            f"\\+ failed {number}",
            line,
        )
        assert found, line
        captured, delivered, dropped, failed = (int(n) for n in found.groups())
        assert captured == delivered + dropped + failed, line
        return {"captured": captured, "delivered": delivered, "dropped": dropped, "failed": failed}


class Process:
    """The program on its way; what it says on stderr can be waited for."""

    def __init__(self, words: Any, env: dict[str, str], folder: Path) -> None:
        self._process = subprocess.Popen(
            [*PROGRAM, *map(str, words)],
            env=env, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._said = b""
        self.ending_s = 0.0

    def wait_for(self, word: str, timeout: float = 60) -> None:
        """Reads stderr until a line has `word` in it."""
        pipe = self._process.stderr
        deadline = time.monotonic() + timeout
        while word.encode() not in self._said:
            assert time.monotonic() < deadline, self._said.decode()
            ready, _, _ = select.select([pipe], [], [], 0.1)
            if ready:
                data = pipe.read1(65536)
                assert data, f"it ended without saying {word!r}: {self._said.decode()}"
                self._said += data

    def send(self, *signals: int, pause_s: float = 0.0) -> Done:
        begun = time.monotonic()
        for number in signals:
            self._process.send_signal(number)
            time.sleep(pause_s)
        out, err = self._process.communicate(timeout=60)
        self.ending_s = time.monotonic() - begun
        return Done(self._process.returncode, out.decode(), (self._said + err).decode())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *error: object) -> None:
        if not self.has_ended:
            self._process.kill()
        self._process.communicate()


def environment(cache: Path, **more: str) -> dict[str, str]:
    """The caller's environment, with a cache of the tests' own and a terminal of known width."""
    return {**os.environ, "STREAMSEG_CACHE": str(cache), "COLUMNS": "100", **more}


def call(command: list[Any], *, env: dict[str, str], cwd: Path, timeout: float = 60) -> Done:
    words = [str(word) for word in command]
    done = subprocess.run(
        words, env=env, cwd=cwd, timeout=timeout, capture_output=True, text=True, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


def save_colours(folder: Path) -> Path:
    """Writes colours.onnx and its card colours.yaml; returns the first."""
    import onnx

    layer = networks.Layer(_SCORES.reshape(4, 3, 1, 1), _BIAS)
    path = folder / "colours.onnx"
    onnx.save(networks.network(layer), str(path))
    path.with_suffix(".yaml").write_text(yaml.safe_dump(card()), encoding="utf-8")
    return path


def card(**changes: Any) -> dict[str, Any]:
    """The card of `save_colours`; a change to None leaves a key out, `a.b` is key b of a."""
    keys: dict[str, Any] = {
        "name": "colours",
        "input": {
            "height": SIZE[0],
            "width": SIZE[1],
            "mean": [0.0, 0.0, 0.0],
            "std": [1.0, 1.0, 1.0],
            "color": "rgb",
        },
        "classes": list(CLASSES),
    }
    for name, value in changes.items():
        at, _, key = name.rpartition("__")
        part = keys[at] if at else keys
        if value is None:
            del part[key]
        else:
            part[key] = value
    return keys


@dataclass(frozen=True)
class Video:
    """What is in a video file, decoded to its end."""

    pictures: list[np.ndarray]
    """uint8 (H, W, 3) RGB."""
    times: list[float]
    """Seconds."""
    codec: str
    rate: float
    audio_packets: int

    @property
    def size(self) -> tuple[int, int]:
        return self.pictures[0].shape[:2]


def read_video(path: Path, pix_fmt: str = "rgb24") -> Video:
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        frames = list(file.decode(stream))
        codec, rate = stream.codec_context.name, float(stream.average_rate or 0)
    audio = 0
    with av.open(str(path)) as file:
        if file.streams.audio:
            audio = sum(1 for packet in file.demux(file.streams.audio) if packet.size)
    pictures = [frame.to_ndarray(format=pix_fmt) for frame in frames]
    return Video(pictures, [float(f.pts * f.time_base) for f in frames], codec, rate, audio)


def count_frames(path: Path) -> int:
    with av.open(str(path)) as file:
        return sum(1 for _ in file.decode(video=0))


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every name under a folder, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
