"""How soon pictures come again after a fault, and how soon Ctrl-C ends the program.

    python -m benchmarks.live_faults --json FILE [--rounds 3]

A camera on RTSP (GStreamer's server, 720p, a keyframe a second), the pipeline without a network of
note. `back_s` is from the moment that the camera is there again (its server listens, its process
goes on, the line is whole) to the first new picture; waiting for a keyframe is part of it. `stop_s`
is from `Pipeline.stop` to the end of its last thread and process, in each state.
"""

from __future__ import annotations

import argparse
import json
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.live import write_camera
from pipeline.sources import LiveOptions, open_source
from tests.pipeline.sources.live.peers import RtspServer, Run, wait_until
from tests.pipeline.sources.live.proxies import SlowLine


def killed(server: RtspServer, line: SlowLine, lost: Callable[[], bool]) -> float:
    """The server's process ends, and three seconds later there is another."""
    server.kill()
    wait_until(lost)
    time.sleep(3)
    return server.start()


def stopped(server: RtspServer, line: SlowLine, lost: Callable[[], bool]) -> float:
    """The server's process stands still for ten seconds."""
    server.send(signal.SIGSTOP)
    time.sleep(10)
    server.send(signal.SIGCONT)
    return time.monotonic()


def cut(server: RtspServer, line: SlowLine, lost: Callable[[], bool]) -> float:
    """The connection is closed between the two."""
    begun = time.monotonic()
    line.cut()
    wait_until(lost)  # what was on its way until then is none of the new ones
    return begun


def once(fault: Callable[..., float], units: Path, transport: Any) -> tuple[float, dict[str, Any]]:
    """Seconds until it was back, and the ledger."""
    with RtspServer(units) as server, SlowLine(server.port) as line:
        said: list[str] = []
        options = LiveOptions(rtsp_transport=transport)
        port = line.port if fault is cut else server.port
        source = open_source(f"rtsp://127.0.0.1:{port}/camera", live=options, say=said.append)
        with Run(source) as run:
            run.more(10)
            returned = fault(server, line, lambda: any("lost" in text for text in said))
            # Said when there is a new picture; one from before the fault may still be on its way.
            back_s = wait_until(lambda: any("back" in text for text in said)) - returned
            run.more(1)
        run.check()
        return round(back_s, 2), run.pipeline.ledger.as_dict()


def stop_s(units: Path, state: str) -> float:
    """Seconds that stopping takes in a state."""
    with RtspServer(units) as server:
        said: list[str] = []
        options = LiveOptions(stall_timeout_s=1 if state == "opening" else 30)
        source = open_source(server.url, live=options, say=said.append)
        run = Run(source)
        run.more(10)
        if state == "reconnecting":
            server.kill()
        elif state != "reading":
            server.send(signal.SIGSTOP)
        if state in ("reconnecting", "opening"):
            wait_until(lambda: any("lost" in text for text in said))
        time.sleep(1)
        return round(run.stop(), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="write the result there")
    ask = parser.parse_args()
    result: dict[str, Any] = {"back_s": {}, "stop_s": {}, "outages": {}}
    with tempfile.TemporaryDirectory() as folder:
        units = Path(folder) / "camera.units"
        write_camera(units, None)
        for fault, transport in [(killed, "tcp"), (killed, "udp"), (stopped, "tcp"), (cut, "tcp")]:
            name = f"{fault.__name__} ({transport})"
            runs = [once(fault, units, transport) for _ in range(ask.rounds)]
            result["back_s"][name] = [back_s for back_s, _ in runs]
            result["outages"][name] = [ledger["outages"] for _, ledger in runs]
            print(name, result["back_s"][name], flush=True)
        for state in ("reading", "stalled", "reconnecting", "opening"):
            result["stop_s"][state] = [stop_s(units, state) for _ in range(ask.rounds)]
            print("stop", state, result["stop_s"][state], flush=True)
    if ask.json:
        Path(ask.json).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
