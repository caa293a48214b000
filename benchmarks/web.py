"""What viewers of the web page cost the pipeline: FPS with eight of them beside FPS with none.

    python -m benchmarks.web --json benchmarks/results/web.json

A paced source of 15 frames a second (1280x720) runs through the model `voc`, once as a warm-up and
then in rounds taken in turns, with nobody watching and with eight viewers: four by WebRTC, three by
MJPEG, and one by MJPEG that reads a byte a second. Viewers are processes of their own. They take
pictures in and do not decode them, as decoding is the viewers' machines' work; with `--decode` they
do, on the same cores as the pipeline. Where other work has the cores, frames a second say little;
CPU time a frame stands beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import socket
import statistics
import time
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2

FPS = 15
RTC, MJPEG = 4, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="voc", help="a model's name, or fake for no network")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--decode", action="store_true", help="viewers decode, on these cores")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    rows: list[dict[str, Any]] = []
    one_run(options.model, 5.0, viewers=False, decode=options.decode)
    for number in range(options.rounds):
        for viewers in (False, True) if number % 2 == 0 else (True, False):
            row = one_run(options.model, options.seconds, viewers, options.decode)
            rows.append(row)
            print(json.dumps(row), flush=True)
    alone = statistics.median(r["fps"] for r in rows if not r["viewers"])
    watched = statistics.median(r["fps"] for r in rows if r["viewers"])
    result = {
        "schema": 1,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "command": "python -m benchmarks.web "
        + " ".join(f"--{k} {v}" for k, v in [("model", options.model), ("rounds", options.rounds)])
        + f" --seconds {options.seconds:g}"
        + (" --decode" if options.decode else ""),
        "machine": {
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "viewers": {"webrtc": RTC, "mjpeg": MJPEG, "mjpeg, a byte a second": 1},
        "rounds": rows,
        "fps_alone": alone,
        "fps_watched": watched,
        "loss": round(1 - watched / alone, 4),
        "cpu_ms_alone": statistics.median(r["cpu_ms_a_frame"] for r in rows if not r["viewers"]),
        "cpu_ms_watched": statistics.median(r["cpu_ms_a_frame"] for r in rows if r["viewers"]),
    }
    print(f"alone {alone:.2f} fps, watched {watched:.2f} fps: {result['loss']:.1%} less")
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def one_run(model: str, seconds: float, viewers: bool, decode: bool) -> dict[str, Any]:
    """A run of so many seconds after everybody watches; what the pipeline did meanwhile."""
    import threading

    from engines.choose import load_engine
    from engines.fake_engine import FakeEngine
    from pipeline.api import stages_for
    from pipeline.runner import Pipeline
    from pipeline.sinks.web import open_web
    from pipeline.sources import SyntheticSource
    from pipeline.stages import Controls

    context = multiprocessing.get_context("spawn")
    with FakeEngine() if model == "fake" else load_engine(model) as engine:
        controls = Controls()
        with closing(open_web(":0", engine.card, controls, say=print)) as web:
            source = SyntheticSource(720, 1280, count=1_000_000, fps=FPS, paced=True)
            pipeline = Pipeline(source, stages_for(engine, controls), [web])
            web.pipeline = pipeline
            thread = threading.Thread(target=pipeline.run)
            thread.start()
            port = int(web.url.rstrip("/").rpartition(":")[2])
            received = context.Array("i", RTC + MJPEG + 1)
            kinds = [_watch_rtc] * RTC + [_watch_mjpeg] * MJPEG + [_watch_slowly]
            processes = [
                context.Process(target=kind, args=(port, received, i, decode))
                for i, kind in enumerate(kinds if viewers else [])
            ]
            try:
                for process in processes:
                    process.start()
                wait_until(lambda: pipeline.delivered > FPS)
                if viewers:
                    wait_until(lambda: all(received))
                before, seen = pipeline.delivered, list(received)
                dropped, cpu, begun = pipeline.dropped, time.process_time(), time.monotonic()
                time.sleep(seconds)
                took = time.monotonic() - begun
                frames, cpu = pipeline.delivered - before, time.process_time() - cpu
                row = {
                    "viewers": len(processes),
                    "fps": round(frames / took, 3),
                    "dropped": pipeline.dropped - dropped,
                    "cpu_ms_a_frame": round(1000 * cpu / max(1, frames), 2),
                    "load": round(os.getloadavg()[0], 1),
                    "latency_ms": pipeline.latency.as_dict((50, 90, 99, 99.9)),
                    "received_fps": [
                        round((n - m) / took, 1) for n, m in zip(received, seen, strict=True)
                    ][: RTC + MJPEG if viewers else 0],
                }
            finally:
                for process in processes:
                    process.terminate()
                    process.join()
                pipeline.stop()
                thread.join()
    return row


def wait_until(condition: Any, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("the viewers do not all see a picture")
        time.sleep(0.05)


def _watch_rtc(port: int, received: Any, number: int, decode: bool) -> None:
    """A WebRTC viewer of aiortc's; decoding is what it would do by itself."""
    from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription, rtcrtpreceiver

    if not decode:
        rtcrtpreceiver.get_decoder = lambda codec: _NoDecoder()

    async def watch() -> None:
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        peer.addTransceiver("video", direction="recvonly")
        tracks: list[Any] = []
        peer.on("track", tracks.append)
        await peer.setLocalDescription(await peer.createOffer())
        sdp = await asyncio.to_thread(_offer, port, peer.localDescription.sdp)
        await peer.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
        while True:
            await tracks[0].recv()
            received[number] += 1

    asyncio.run(watch())


class _NoDecoder:
    def decode(self, encoded: Any) -> list[Any]:
        return [encoded]


def _offer(port: int, sdp: str) -> str:
    import http.client

    with closing(http.client.HTTPConnection("127.0.0.1", port)) as client:
        body = json.dumps({"sdp": sdp})
        client.request("POST", "/api/offer", body, {"content-type": "application/json"})
        return str(json.loads(client.getresponse().read())["sdp"])


def _watch_mjpeg(port: int, received: Any, number: int, decode: bool) -> None:
    import numpy as np

    with closing(_mjpeg(port)) as client:
        data = b""
        while chunk := client.recv(262144):
            data += chunk
            while (start := data.find(b"\xff\xd8")) >= 0:
                if (end := data.find(b"\r\n--frame", start)) < 0:
                    break
                if decode:
                    cv2.imdecode(np.frombuffer(data[start:end], np.uint8), cv2.IMREAD_COLOR)
                received[number] += 1
                data = data[end + 9 :]


def _watch_slowly(port: int, received: Any, number: int, decode: bool) -> None:
    """Reads a byte a second; comes back when it is let go of, as a bad line would."""
    while True:
        with closing(_mjpeg(port)) as client:
            try:
                while client.recv(1):
                    received[number] += 1
                    time.sleep(1)
            except ConnectionError:
                pass


def _mjpeg(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return client


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
