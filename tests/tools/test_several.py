"""`streamseg run A B C`: each source as if it were alone, whatever becomes of the others."""

import http.client
import json
import re
import shutil
import signal
import socket
import sys
import time
from contextlib import closing, suppress

import cv2
import numpy as np
import pytest
import typer

from engines.model import find_model
from pipeline.errors import PipelineError
from pipeline.threads import expect_pipelines, plan_threads
from tests.pipeline.sinks.test_window import Display
from tests.pipeline.sources.live.peers import RtspServer, missing_rtsp_server, write_units
from tests.tools.program import PROGRAM, Process, call, count_frames
from tools.config import RunConfig, merge
from tools.names import ask_each, source_names
from tools.targets import check_targets

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
OPTIONS = ["-o", "{name}.mp4", "--mask", "{name}-ids.mkv", "--stats", "{index}.jsonl"]
# Where nothing else runs it ends within a second; test machines are shared.
ENDS_WITHIN_S = 8.0


def ledgers(out):
    """(captured, delivered) by the source's name, of what was printed."""
    found = re.findall(r"^(\S+): frames captured (\d+) = delivered (\d+)", out, re.MULTILINE)
    return {name: (int(captured), int(delivered)) for name, captured, delivered in found}


class TestNames:
    @pytest.mark.parametrize(
        ("source", "name"),
        [
            ("film.mp4", "film"),
            ("a/my film ü.mp4", "my film ü"),
            ("100%d.mp4", "100_d"),
            ("photos/", "photos"),
            ("photos/*.png", "photos"),
            ("0", "camera0"),
            ("/dev/video2", "camera2"),
            ("/dev/v4l/by-id/usb-ACME_cam-index0", "usb-ACME_cam-index0"),
            ("rtsp://me:s3cr3t@cam.local:554/live/1", "cam.local_554_live_1"),
            ("https://host/list.m3u8?token=s3cr3t", "host_list.m3u8"),
            ("udp://@:1234", "1234"),
        ],
    )
    def test_of_a_source(self, source, name):
        assert source_names([source]) == [name]

    def test_equal_ones_are_numbered(self):
        sources = ["x/a.mp4", "a-2.mp4", "y/a.mp4", "A.mkv", "a.mp4"]
        assert source_names(sources) == ["a", "a-2", "a-3", "A-4", "a-5"]

    def test_outputs_are_filled_in_once(self):
        """A name that looks like a field is only a name."""
        ask = RunConfig(source=["{index}.mp4", "b.mp4"], output="o/{name}_{index}.mp4", report="r")
        first, second = ask_each(ask)
        assert first.output == ["o/{index}_0.mp4"]
        assert second.output == ["o/b_1.mp4"]
        assert (first.source, first.report) == (["{index}.mp4"], "r")


class TestRequests:
    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"output": ["o.mp4"]}, r"-o o.mp4: 2 sources .* such as \{name\}.mp4"),
            ({"output": ["{name}.mp4", "rtsp://h/x"]}, r"rtsp://h/x: .* rtsp://h/x/\{name\}"),
            ({"mask": "m/"}, r"--mask m/: .* m/\{name\}"),
            ({"mask": "m/%06d.png"}, r"m/\{name\}/%06d.png"),
            ({"stats": "s.jsonl"}, "--stats s.jsonl"),
            ({"trace": "t.json"}, "--trace t.json"),
            ({"report": "{name}.json"}, "--report .* one file"),
            ({"show": True}, "--show shows one picture, not 2 .* --mosaic"),
            ({"web": ":8000"}, "--web shows .* --mosaic"),
            ({"mosaic": True}, "add --show or --web"),
        ],
    )
    def test_what_cannot_be_is_one_line(self, given, says):
        with pytest.raises(typer.BadParameter, match=says):
            merge(None, {"source": ["a.mp4", "b.mp4"], **given})

    def test_a_config_names_one_or_several(self, tmp_path):
        path = tmp_path / "run.yaml"
        for text, sources in (
            ("source: a.mp4", ["a.mp4"]),
            ("source: 0", ["0"]),
            ("source: [a.mp4, 1]\noutput: '{name}.mp4'", ["a.mp4", "1"]),
        ):
            path.write_text(text)
            assert merge(path, {"source": []}).source == sources
            assert merge(path, {"source": ["x.mp4"]}).source == ["x.mp4"]
        path.write_text("source: []")
        with pytest.raises(typer.BadParameter, match="name a SOURCE"):
            merge(path, {})

    def test_nobody_writes_over_another(self, tmp_path, monkeypatch, colours):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "x").mkdir()
        for name in ("a.mp4", "b.mp4", "x/a.mp4"):
            (tmp_path / name).touch()
        model = find_model(colours)

        def check(*sources, **options):
            ask = RunConfig(source=list(sources), **options)
            check_targets(ask, ask_each(ask), model)

        check("a.mp4", "b.mp4", output="{name}.mkv", mask="{name}-ids.mkv", report="r.json")
        with pytest.raises(PipelineError, match=r"a.mp4 is one of the sources"):
            check("x/a.mp4", "b.mp4", "a.mp4", output="{name}.mp4")
        with pytest.raises(PipelineError, match="twice"):
            check("a.mp4", "b.mp4", output=["{name}.mkv", "{index}.mkv"], mask="{name}.mkv")
        with pytest.raises(PipelineError, match="twice"):
            check("a.mp4", "0.mp4", output=["{name}.mkv", "0.mkv"])

    def test_cores_are_shared_out(self):
        try:
            assert plan_threads(16).decode == 4
            expect_pipelines(4)
            assert plan_threads(16).encode == 1
            assert plan_threads(2).decode == 1
        finally:
            expect_pipelines(1)


@pytest.fixture(scope="module")
def mixed(env, media, colours, tmp_path_factory):
    """Good ones, one that is not there, one that breaks off, and one of a name that is taken."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "other").mkdir()
    data = (media / "noise.mkv").read_bytes()
    (folder / "cut.mkv").write_bytes(data[: len(data) // 3])
    (folder / "other" / "clip.mp4").write_bytes((media / "numbered.mp4").read_bytes())
    (folder / "bad.mov").write_text("This is not a film.\n" * 100)
    sources = [media / "clip.mp4", "bad.mov", "cut.mkv", "other/clip.mp4"]
    words = ["run", *sources, "--model", colours, *OPTIONS, "--report", "all.json"]
    return folder, call([*PROGRAM, *words], env=env, cwd=folder)


def test_one_bad_source_costs_the_others_nothing(mixed):
    folder, done = mixed
    assert done.code == 1
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.err
    assert errors[0].startswith("error: bad: bad.mov ")
    found = ledgers(done.out)
    assert found["clip"] == (10, 10)
    assert found["clip-2"] == (25, 25)
    captured, delivered = found["cut"]
    assert 10 < captured == delivered < 100
    assert re.search(r"^cut: warning: \d+ frames of cut.mkv are lost", done.err, re.MULTILINE)
    total = re.search(r"^total  (\d+) frames of 4 sources, .*; 1 failed$", done.out, re.MULTILINE)
    assert int(total[1]) == 35 + delivered
    assert not list(folder.glob("*.partial*"))
    for line in done.err.splitlines():
        ours = ("model  ", "engine  ", "error: ", "preparing ")
        assert line.startswith((*ours, "clip: ", "clip-2: ", "cut: ")) or " sources" in line, line


def test_each_output_is_what_the_source_alone_gives(mixed, env, colours, tmp_path):
    folder, _ = mixed
    for index, name, source in (
        (2, "cut", folder / "cut.mkv"),
        (3, "clip-2", folder / "other" / "clip.mp4"),
    ):
        words = ["run", source, "--model", colours, "--force", *OPTIONS]
        done = call([*PROGRAM, *words], env=env, cwd=tmp_path)
        assert done.code == 0, done.err
        alone = source.stem
        for one, other in (
            (f"{name}.mp4", f"{alone}.mp4"),
            (f"{name}-ids.mkv", f"{alone}-ids.mkv"),
            (f"{index}.jsonl", "0.jsonl"),
        ):
            mine, theirs = (folder / one).read_bytes(), (tmp_path / other).read_bytes()
            if one.endswith(".mkv"):  # whose segment has a random name
                mine, theirs = decoded(folder / one), decoded(tmp_path / other)
            assert mine == theirs, one


def decoded(path):
    import av

    with av.open(str(path)) as file:
        return [frame.to_ndarray().tobytes() for frame in file.decode(video=0)]


def test_the_report_has_all_of_them(mixed):
    folder, _ = mixed
    report = json.loads((folder / "all.json").read_text())
    assert set(report) == {"schema", "runs"}
    assert report["schema"] == 1
    runs = report["runs"]
    assert [run["source"].rpartition("/")[2] for run in runs] == [
        "clip.mp4", "bad.mov", "cut.mkv", "clip.mp4",
    ]  # fmt: skip
    assert len({tuple(run) for run in runs}) == 1, "the keys are the same for all"
    assert [run["frames"]["delivered"] for run in (runs[0], runs[1], runs[3])] == [10, 0, 25]
    assert [bool(run["error"]) for run in runs] == [False, True, False, False]
    for run in (runs[0], runs[2], runs[3]):
        assert all(output["complete"] for output in run["outputs"])
        assert run["bottleneck"]["advice"]
        assert [row["name"] for row in run["stages"]][:4] == [
            "capture", "preprocess", "infer", "colorize",
        ]  # fmt: skip
    assert runs[1]["stages"] == runs[1]["outputs"] == []


def test_what_none_can_do_is_everybodys_error(streamseg, tmp_path, clip, colours):
    done = streamseg("run", "no1.mp4", "no2.mp4", "--model", colours, "--quiet")
    assert done.code == 1
    assert not done.out
    assert sorted(line[:11] for line in done.err.splitlines()) == ["error: no1:", "error: no2:"]
    (tmp_path / "clip-2.mp4").write_text("precious")
    words = ["-o", "{name}.mp4", "--model", colours, "--trace", "{index}.json"]
    done = streamseg("run", clip, clip, *words)
    assert done.code == 1
    assert "error: clip-2: clip-2.mp4 exists; --force overwrites it" in done.err
    assert (tmp_path / "clip-2.mp4").read_text() == "precious"
    assert count_frames(tmp_path / "clip.mp4") == 10
    assert json.loads((tmp_path / "0.json").read_text())["traceEvents"]


@posix
def test_ctrl_c_closes_all(env, media, tmp_path):
    words = ["run", media / "long.mp4", media / "noise.mkv", "-o", "{name}.mp4"]
    words += ["--report", "r.json"]
    with Process(words, env, tmp_path) as process:
        process.wait_for("long: output  ")
        process.wait_for("noise: output  ")
        process.wait_for("engine  ")
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("*.partial.mp4"))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
        done = process.send(signal.SIGINT)
    assert done.code == 130, done
    assert process.ending_s < ENDS_WITHIN_S
    assert "Traceback" not in done.err
    runs = json.loads((tmp_path / "r.json").read_text())["runs"]
    for name, run in zip(("long", "noise"), runs, strict=True):
        count = ledgers(done.out)[name][1]
        assert run["interrupted"]
        assert run["frames"]["delivered"] == count
        path = tmp_path / f"{name}.mp4"
        assert (count_frames(path) if path.exists() else 0) == count


@posix
def test_one_that_never_comes_holds_nobody_up(env, media, colours, tmp_path):
    """A server that takes the connection and says nothing, and --reconnect forever."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"rtsp://me:s3cr3t@127.0.0.1:{silent.getsockname()[1]}/x"
        words = ["run", url, media / "numbered.mp4", "--model", colours, "-o", "{name}.mp4"]
        words += ["--reconnect", "forever", "--report", "r.json"]
        with Process(words, env, tmp_path) as process:
            wait_for_file(process, tmp_path / "numbered.mp4")
            done = process.send(signal.SIGINT)
    assert done.code == 130, done
    assert process.ending_s < ENDS_WITHIN_S
    assert count_frames(tmp_path / "numbered.mp4") == 25
    text = (tmp_path / "r.json").read_text()
    first, second = json.loads(text)["runs"]
    assert (first["error"], first["interrupted"], first["outputs"]) == (None, True, [])
    assert second["frames"]["delivered"] == 25
    assert "s3cr3t" not in text + done.out + done.err


@posix
@pytest.mark.skipif(bool(missing_rtsp_server()), reason=missing_rtsp_server() or "it is there")
def test_a_camera_that_stalls_holds_nobody_up(env, media, colours, tmp_path):
    """Stopped with frames in every channel: the file beside it goes on to its end."""
    with RtspServer(write_units(tmp_path / "camera.units")) as camera:
        words = ["run", camera.url, media / "long.mp4", "--model", colours, "-o", "{index}.mp4"]
        with Process([*words, "--stall-timeout", 60], env, tmp_path) as process:
            process.wait_for("engine  ")
            process.wait_for("_camera: output  ")
            deadline = time.monotonic() + 30
            while not list(tmp_path.glob("0.partial.mp4")):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            camera.send(signal.SIGSTOP)
            assert not (tmp_path / "1.mp4").exists(), "it was over before the camera stopped"
            wait_for_file(process, tmp_path / "1.mp4")
            done = process.send(signal.SIGINT)
    assert done.code == 130, done
    assert count_frames(tmp_path / "1.mp4") == 1500
    found = ledgers(done.out)
    assert found["long"] == (1500, 1500)
    (name,) = set(found) - {"long"}
    if (tmp_path / "0.mp4").exists():
        assert count_frames(tmp_path / "0.mp4") == found[name][1]


def wait_for_file(process, path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        assert not process.has_ended
        time.sleep(0.05)


@posix
def test_the_mosaic_on_a_page(env, media, tmp_path):
    pytest.importorskip("uvicorn", reason="the extra web is not installed")
    words = ["run", media / "long.mp4", media / "long.mp4", "bad.mp4", "--mosaic", "--web", ":0"]
    with Process(words, env, tmp_path) as process:
        process.wait_for("output  http://")
        url = re.search(rb"output  http://127.0.0.1:(\d+)", process._said)
        picture = None
        deadline = time.monotonic() + 60
        while picture is None or picture[180:400, 0:640].std() < 1 or delivered(url[1]) < 10:
            assert time.monotonic() < deadline
            time.sleep(0.1)
            with suppress(OSError):
                status, data = fetch(url[1], "/snapshot.png")
                if status == 200:
                    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        done = process.send(signal.SIGINT)
    assert picture.shape == (720, 1280, 3)
    assert picture[360:680, 0:640].max() < 60, "the one that was not there"
    assert done.code == 1, "it was missing all the same"
    assert "Traceback" not in done.err
    assert "error: bad: " in done.err
    assert process.ending_s < ENDS_WITHIN_S


def fetch(port, path):
    with closing(http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)) as client:
        client.request("GET", path)
        response = client.getresponse()
        return response.status, response.read()


def delivered(port):
    found = re.search(
        rb"^streamseg_frames_delivered_total (\S+)$", fetch(port, "/metrics")[1], re.M
    )
    return float(found[1]) if found else 0.0


@posix
@pytest.mark.skipif(
    not (shutil.which("Xvfb") and shutil.which("xdotool")), reason="needs Xvfb and xdotool"
)
def test_the_mosaic_in_a_window(env, media, colours, tmp_path, tmp_path_factory):
    """Files that are only looked at go at their own pace; q ends all of them, and is no failure."""
    display = Display(tmp_path_factory.mktemp("screen"))
    try:
        display.do("mousemove", "100", "100")  # keys go where the pointer is
        words = ["run", media / "long.mp4", media / "long.mp4", "--model", colours]
        words += ["--mosaic", "--show"]
        environment = {**env, "DISPLAY": display.name}
        environment.pop("WAYLAND_DISPLAY", None)
        with Process(words, environment, tmp_path) as process:
            process.wait_for("output  a window")
            process.wait_for("pace ")
            deadline = time.monotonic() + 30
            # The gray of the clip, where "loading the network" was dark.
            while np.median(display.pixels()[100:250, 50:500]) < 90:
                assert time.monotonic() < deadline
                assert not process.has_ended
                time.sleep(0.05)
            display.do("key", "q")
            done = process.send()
    finally:
        display.process.terminate()
        display.process.wait()
    assert done.code == 0, done
    assert set(ledgers(done.out)) == {"long", "long-2"}
    assert "Traceback" not in done.err
