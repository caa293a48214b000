"""Live sources as a user runs them: the program, a real camera on RTSP, and its faults."""

import json
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.pipeline.sources.live.peers import RtspServer, missing_rtsp_server, write_units
from tests.tools.program import Process, count_frames

pytestmark = pytest.mark.skipif(
    bool(missing_rtsp_server()), reason=missing_rtsp_server() or "it is there"
)
# Where nothing else runs it ends within a second; test machines are shared.
ENDS_WITHIN_S = 5.0
USER, PASSWORD = "me", "s3cr3t-w0rd"


@pytest.fixture(scope="module")
def units(tmp_path_factory):
    return write_units(tmp_path_factory.mktemp("units") / "camera.units")


@pytest.fixture
def camera(units):
    with RtspServer(units, user=USER, password=PASSWORD) as server:
        yield server


def with_password(server, password=PASSWORD):
    return server.url.replace("//", f"//{USER}:{password}@")


def reader_of(process):
    """The process that reads for the program: its folder in /proc, and its command line."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = re.search(r"^PPid:\s*(\d+)", (entry / "status").read_text(), re.MULTILINE)
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if parent and int(parent[1]) == process.pid and "live.reader" in line:
                return entry, line
    raise AssertionError("the program has no reader")


def test_two_seconds_of_a_camera(camera, streamseg, colours, tmp_path):
    done = streamseg(
        "run", with_password(camera), "-o", "o.mp4", "--duration", 2, "--model", colours,
        "--report", "r.json", "--trace", "t.json", "--max-latency", 2000,
    )  # fmt: skip
    assert done.code == 0, done.err
    ledger = done.ledger()
    assert count_frames(tmp_path / "o.mp4") == ledger["delivered"] > 10
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["source"] == camera.url.replace("//", "//***@")
    assert report["frames"]["outages"] == {"count": 0, "seconds": 0.0}
    assert 0 < report["latency_ms"]["p50"] < 2000
    everything = done.out + done.err
    everything += "".join(path.read_text() for path in tmp_path.glob("*.json"))
    assert PASSWORD not in everything


def test_the_wrong_password_is_one_line(camera, streamseg, colours):
    url = with_password(camera, "wr0ng-w0rd")
    done = streamseg("run", url, "--model", colours, "--reconnect", "forever")
    assert done.code == 1
    assert "(401)" in done.err
    assert "wr0ng-w0rd" not in done.err
    assert len(done.rest) == 1


@pytest.mark.parametrize("state", ["stalled", "lost"])
def test_ctrl_c_in_every_state(camera, env, colours, tmp_path, state):
    words = ["run", with_password(camera), "-o", "o.mp4", "--model", colours, "--report", "r.json"]
    with Process([*words, "--stall-timeout", 30], env, tmp_path) as process:
        process.wait_for("output  ")
        time.sleep(1.0)
        if state == "stalled":
            camera.send(signal.SIGSTOP)
            time.sleep(0.5)
        else:
            camera.kill()
            process.wait_for("lost (")
        folder, line = reader_of(process)
        done = process.send(signal.SIGINT)
    assert done.code == 130, done
    assert process.ending_s < ENDS_WITHIN_S
    assert "Traceback" not in done.err
    ledger = done.ledger()
    assert count_frames(tmp_path / "o.mp4") == ledger["delivered"] > 0
    assert PASSWORD not in line
    assert not folder.exists()
    assert PASSWORD not in done.out + done.err
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["interrupted"]
    assert report["frames"]["outages"]["count"] == (state == "lost")
    if state == "lost":
        assert re.search(r"; 1 outage of \d+\.\d s", done.out)


def test_a_program_that_is_killed_takes_its_reader_with_it(camera, env, colours, tmp_path):
    with Process(["run", with_password(camera), "--model", colours], env, tmp_path) as process:
        process.wait_for("output  ")
        folder, _ = reader_of(process)
        process.send(signal.SIGKILL)
    deadline = time.monotonic() + 5
    # Whoever adopts it may leave it lying about for a while, dead.
    while folder.exists() and "zombie" not in (folder / "status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
