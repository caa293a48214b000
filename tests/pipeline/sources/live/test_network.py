"""The other ways of a stream over a network, each from a real sender: the ffmpeg program, or a web
server of the tests' own.
"""

from __future__ import annotations

import socket
import time
from contextlib import contextmanager

import pytest

from pipeline.errors import SourceError
from pipeline.sources import LiveOptions, open_source
from tests.clips import Tone, write_clip
from tests.pipeline.sources.live.peers import (
    HEIGHT,
    WIDTH,
    Files,
    Jpegs,
    Run,
    ffmpeg,
    free_port,
    http_server,
    needs_ffmpeg,
    wait_until,
)

pytestmark = pytest.mark.timeout(60)
FAST = LiveOptions(reconnect="forever", stall_timeout_s=1.5)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Ten seconds with a keyframe every half second, and with sound."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    options = {"preset": "ultrafast", "crf": "12", "g": "12", "bf": "0"}
    return write_clip(path, count=250, options=options, audio=[Tone(seconds=10.0)])


@contextmanager
def sending(clip, *target):
    """The clip in real time, again and again."""
    words = ["-re", "-stream_loop", "-1", "-i", str(clip), "-c", "copy", *target]
    with ffmpeg(*words) as process:
        yield process


def targets(kind):
    """(what ffmpeg is to do, what we open) of a transport; the port is new each time."""
    port = free_port()
    return {
        "udp": (["-f", "mpegts", f"udp://127.0.0.1:{port}?pkt_size=1316"], f"udp://127.0.0.1:{port}"),
        "rtmp": (
            ["-f", "flv", "-listen", "1", f"rtmp://127.0.0.1:{port}/live/key"],
            f"rtmp://127.0.0.1:{port}/live/key",
        ),
        "srt": (
            ["-f", "mpegts", f"srt://127.0.0.1:{port}?mode=listener&passphrase=secretsecret"],
            f"srt://127.0.0.1:{port}?passphrase=secretsecret",
        ),
        "ts over http": (
            ["-f", "mpegts", "-listen", "1", f"http://127.0.0.1:{port}/live.ts"],
            f"http://127.0.0.1:{port}/live.ts",
        ),
    }[kind]  # fmt: skip


@pytest.mark.parametrize("kind", ["udp", "rtmp", "srt", "ts over http"])
def test_a_stream_that_breaks_and_comes_back(clip, kind):
    needs_ffmpeg(kind.split()[-1])
    target, url = targets(kind)
    said = []
    with sending(clip, *target):
        source = open_source(url, live=FAST, say=said.append)
        assert source.live
        assert (source.info.height, source.info.width) == (HEIGHT, WIDTH)
        run = Run(source)
        with stopped_on_failure(run):
            run.more(20)
    with run:
        wait_until(lambda: any("lost" in line for line in said))
        with sending(clip, *target):
            run.more(20)
    run.check()
    assert run.pipeline.ledger.outages.count >= 1
    assert "secretsecret" not in source.name
    assert not any("secretsecret" in line for line in said)


@contextmanager
def stopped_on_failure(run):
    """Stops the run if the block fails."""
    try:
        yield
    except BaseException:
        run.stop()
        raise


def test_a_camera_that_sends_jpegs(tmp_path):
    with http_server(tmp_path, Jpegs) as url:
        source = open_source(f"{url}/video?token=s3cr3t")
        assert source.live
        assert source.name == f"{url}/video?token=***"
        assert source.info.codec == "mjpeg"
        with Run(source) as run:
            run.more(20)
        run.check()
        # The stream has no times of its own: those of arrival, twenty a second.
        (at, _, pts, _), (until, _, end, _) = run.got[5], run.got[-1]
        assert (end - pts) / 90000 == pytest.approx(until - at, abs=0.1)


def test_a_recording_behind_a_url_is_read_like_a_file(clip, tmp_path):
    with http_server(clip.parent, Files) as url:
        source = open_source(f"{url}/clip.mp4")
        assert not source.live
        assert source.info.frames == 250
        run = Run(source)
        run.wait()
        run.check()
        assert [number for _, _, _, number in run.got] == list(range(250))
        assert run.pipeline.ledger.delivered == 250
        assert [pts for _, _, pts, _ in run.got] == [3600 * i for i in range(250)]
        cut = open_source(f"{url}/clip.mp4", max_frames=3)
        assert len(list(cut.frames())) == 3


def hls(folder, clip, *options):
    """Words for ffmpeg: five seconds of the clip in segments of one."""
    words = ["-t", "5", "-c", "copy", "-an", "-f", "hls", "-hls_time", "1", *options]
    return ["-i", str(clip), *words, str(folder / "list.m3u8")]


def test_a_finished_hls_recording_is_read_to_its_end(clip, tmp_path):
    needs_ffmpeg("http")
    with ffmpeg(*hls(tmp_path, clip, "-hls_list_size", "0")) as process:
        process.wait(20)
    with http_server(tmp_path) as url:
        source = open_source(f"{url}/list.m3u8")
        assert not source.live
        run = Run(source)
        run.wait()
    run.check()
    assert [number for _, _, _, number in run.got] == list(range(125))
    assert run.error is None


def test_live_hls_comes_at_its_own_rate_and_ends_with_its_list(clip, tmp_path):
    needs_ffmpeg("http")
    said = []
    words = hls(tmp_path, clip, "-hls_list_size", "4", "-hls_flags", "delete_segments")
    with http_server(tmp_path) as url, ffmpeg("-re", *words) as sender:
        wait_until(lambda: (tmp_path / "list1.ts").exists())
        source = open_source(f"{url}/list.m3u8", say=said.append)
        assert source.live
        run = Run(source)
        begun = run.more(1)
        run.more(40)
        assert run.got[-1][0] - begun > 0.8, "41 frames of 25 a second, not in a burst"
        sender.wait(20)
        run.wait(30)
    run.check()
    assert run.error is None
    assert said[-1].endswith("the stream has ended")
    assert run.got[-1][3] == 124
    assert run.pipeline.ledger.outages.count == 0


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("rtsp://no-such-host.invalid/1", "no host is called no-such-host.invalid"),
        ("rtsp://127.0.0.1:{free}/1", "connection refused"),
        ("rtmp://127.0.0.1:{free}/live/1", "connection refused"),
        ("http://127.0.0.1:{free}/1.m3u8", "connection refused"),
        ("ftp://127.0.0.1/a.mp4", "ftp streams are not read; allowed: rtsp, "),
        ("rtsp:///1", "names no host"),
        ("file:///tmp/a.mp4", "without file://"),
    ],
)
def test_what_cannot_be_opened_is_said_in_one_line(url, says):
    with pytest.raises(SourceError) as caught:
        open_source(url.format(free=free_port()))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_web_servers_that_refuse(tmp_path):
    (tmp_path / "page.html").write_text("<html>no video</html>")
    with http_server(tmp_path) as url:
        with pytest.raises(SourceError, match=r"\(404\); check the path"):
            open_source(f"{url}/none.mp4")
        with pytest.raises(SourceError, match="not a video"):
            open_source(f"{url}/page.html")


@pytest.mark.parametrize("kind", ["udp", "silent tcp"])
def test_a_silent_source_is_given_up_in_time(kind):
    options = LiveOptions(open_timeout_s=1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = f"rtsp://127.0.0.1:{port}/1" if kind != "udp" else f"udp://127.0.0.1:{free_port()}"
        begun = time.monotonic()
        with pytest.raises(SourceError, match="no picture within 1 s"):
            open_source(url, live=options)
        assert time.monotonic() - begun < 6


def test_srt_without_ffmpeg_says_what_is_missing(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SourceError, match="install ffmpeg"):
        open_source("srt://127.0.0.1:9000")
