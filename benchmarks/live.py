"""A camera on RTSP for three minutes, one of them over a line at half the speed it needs.

    python -m benchmarks.live --json FILE [--clip VIDEO] [--minutes 1]

A server (GStreamer) sends 720p at 30 frames a second as H.264, through a proxy on loopback, to the
pipeline with the default network. Each picture carries its number, and the server sends each when
the clock says so, so the age of a picture is known when it comes out: from the camera's clock to
the caller, with the network in between. Three parts of a minute each: steady, throttled to half of
the bytes a second that the stream takes, steady again (from a second after the line is free). What
must come out:

- `added_ms`: from the packet's arrival to the caller. 99% within three frame intervals (100 ms)
  in the steady parts.
- `recovered_s`: how long after the line is free again the age is back where it was (its 99% in the
  first part), for half a second on end. Within one second.
- `rss_mib`: of program and reader together, once a second, does not grow.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import struct
import tempfile
import threading
import time
from contextlib import suppress
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from engines.choose import load_engine
from engines.cores import available_cores
from pipeline import Pipeline, open_source
from pipeline.api import stages_for
from pipeline.sources.synthetic import draw_number, read_number
from tests.pipeline.sources.live.peers import FPS, ROUND, RtspServer
from tests.pipeline.sources.live.proxies import SlowLine

HEIGHT, WIDTH, BITS_PER_S = 720, 1280, 4_000_000
WARM_UP_S, RECOVERY_S = 10.0, 1.0
PARTS = ("steady", "throttled", "steady again")


def write_camera(path: Path, clip: str | None) -> None:
    """A round of the camera's pictures as access units: of a clip, or of noise that moves."""
    context: Any = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    context.time_base, context.framerate = Fraction(1, FPS), FPS
    context.gop_size, context.max_b_frames, context.bit_rate = FPS, 0, BITS_PER_S
    rate = f"vbv-maxrate={BITS_PER_S // 1000}:vbv-bufsize={BITS_PER_S // 2000}:sliced-threads=0"
    context.options = {"preset": "veryfast", "tune": "zerolatency", "x264-params": rate}
    pictures = clip_pictures(clip) if clip else noise()
    with path.open("wb") as file:
        for i in [*range(ROUND), None]:
            frame = None
            if i is not None:
                image = next(pictures)
                draw_number(image, i)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
                frame.pts = i
            for packet in context.encode(frame):
                data = bytes(packet)
                file.write(struct.pack(">?I", packet.is_keyframe, len(data)) + data)


def clip_pictures(clip: str) -> Any:
    """Its pictures at 720p, round and round."""
    while True:
        for frame in open_source(clip).frames():
            yield cv2.resize(frame.image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)


def noise() -> Any:
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (HEIGHT // 4, WIDTH // 2, 3), np.uint8)
    large = cv2.resize(small, (2 * WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    for i in range(10**9):
        x = 3 * i % WIDTH
        yield np.ascontiguousarray(large[:, x : x + WIDTH])


def rss_mib(*pids: int) -> float:
    """Resident memory of processes together; pages that they share count twice."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total / 1024


class Watch:
    """What came when, and how much memory there was, while the pipeline ran."""

    def __init__(self, server: RtspServer, source: Any) -> None:
        self.frames: list[tuple[float, float, float]] = []
        """(monotonic seconds, age at the camera's clock in s, added latency in s)."""
        self.memory: list[tuple[float, float]] = []
        self._server, self._source = server, source
        self._last: tuple[int, float] | None = None
        """How many pictures the camera had taken with the last that came, and its timestamp."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def take(self, frame: Any) -> None:
        now, number = time.monotonic(), read_number(frame.image)
        if self._last is None:  # it is young yet: less than half a round
            taken_s = now - self._server.age_s(number) - self._server.epoch
            expected = taken_s * FPS
        else:
            expected = self._last[0] + (frame.time_s - self._last[1]) * FPS
        count = number + ROUND * round((expected - number) / ROUND)
        self._last = count, frame.time_s
        age_s = now - self._server.epoch - count / FPS
        self.frames.append((now, age_s, time.perf_counter() - frame.captured_at))

    def _sample(self) -> None:
        while not self._over.wait(1.0):
            pid = self._source.reader_pid
            with suppress(OSError):  # it may just have ended
                if pid is not None:
                    self.memory.append((time.monotonic(), rss_mib(os.getpid(), pid)))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()


def percentiles_ms(values: list[float]) -> dict[str, float]:
    return {
        f"p{p}": round(1000 * float(np.percentile(values, p)), 1) for p in (50, 90, 99)
    } | {"max": round(1000 * max(values), 1)}  # fmt: skip


def part_of(watch: Watch, begun: float, ended: float) -> dict[str, Any]:
    """The figures of one part of the run."""
    rows = [row for row in watch.frames if begun <= row[0] < ended]
    memory = [mib for at, mib in watch.memory if begun <= at < ended]
    return {
        "seconds": round(ended - begun, 1),
        "frames": len(rows),
        "fps": round(len(rows) / (ended - begun), 2),
        "age_ms": percentiles_ms([age for _, age, _ in rows]),
        "added_ms": percentiles_ms([added for _, _, added in rows]),
        "rss_mib": {"median": round(statistics.median(memory), 1), "max": round(max(memory), 1)},
    }


def recovered_s(watch: Watch, freed_at: float, limit_s: float) -> float | None:
    """Seconds after which frames were no older than that, for half a second on end."""
    since: float | None = None
    for at, age_s, _ in watch.frames:
        if at < freed_at:
            continue
        if age_s > limit_s:
            since = None
        elif since is None:
            since = at
        elif at - since >= 0.5:
            return round(since - freed_at, 3)
    return None


def measure(clip: str | None, minutes: float) -> dict[str, Any]:
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        units = Path(folder) / "camera.units"
        write_camera(units, clip)
        size = units.stat().st_size
        with RtspServer(units) as server, SlowLine(server.port) as line, load_engine() as engine:
            said: list[str] = []
            url = f"rtsp://127.0.0.1:{line.port}/camera"
            source = open_source(url, say=said.append)
            pipeline = Pipeline(source, stages_for(engine))
            with Watch(server, source) as watch:
                runner = threading.Thread(target=pipeline.run, args=(watch.take,))
                runner.start()
                time.sleep(WARM_UP_S)
                marks, passed = [time.monotonic()], line.passed
                time.sleep(60 * minutes)
                marks.append(time.monotonic())
                needed = (line.passed - passed) / (marks[1] - marks[0])
                line.bytes_per_s = needed / 2
                time.sleep(60 * minutes)
                marks.append(time.monotonic())
                line.bytes_per_s = None
                time.sleep(60 * minutes)
                marks.append(time.monotonic())
                pipeline.stop()
                runner.join()
            freed_at = marks[2]
            marks[2] += RECOVERY_S  # what is to be over by then is `recovered_s`, not steady
            parts = {name: part_of(watch, marks[i], marks[i + 1]) for i, name in enumerate(PARTS)}
            usual_s = parts["steady"]["age_ms"]["p99"] / 1000
            cpu = {s.name: s.as_dict()["cpu_ms"] for s in pipeline.stage_stats}
            return {
                "date": str(date.today()),
                "machine": f"{platform.machine()}, {available_cores()} cores",
                "stream": f"{WIDTH}x{HEIGHT} H.264, {FPS} fps, {8 * size * FPS / ROUND / 1e6:.1f} "
                f"Mbit/s, {'of ' + Path(clip).name if clip else 'moving noise'}",
                "engine": f"{engine.card.name}, {engine.info.name} {engine.info.precision}",
                "line_bytes_per_s": round(needed),
                "throttled_to": round(needed / 2),
                "frame_interval_ms": round(1000 / FPS, 1),
                "parts": parts,
                "recovered_s": recovered_s(watch, freed_at, usual_s),
                "frames": pipeline.ledger.as_dict(),
                "balanced": pipeline.ledger.unaccounted == 0,
                "stage_cpu_ms": cpu,
                "said": said,
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clip", help="a video whose pictures the camera shows")
    parser.add_argument("--minutes", type=float, default=1.0, help="of each of the three parts")
    parser.add_argument("--json", help="write the result there")
    ask = parser.parse_args()
    result = measure(ask.clip, ask.minutes)
    text = json.dumps(result, indent=2)
    print(text)
    if ask.json:
        Path(ask.json).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
