"""How fast the program starts, what it loads for that, and what it prints where."""

import json
import os
import platform
import re
import subprocess
import sys
import time

import pytest

from engines.model import shipped_models
from engines.zoo.smp import ARCHITECTURES
from engines.zoo.torchvision import NETWORKS
from tests.tools.program import PROGRAM, call

# The contract's limits. The best of several tries is what the program costs; the others show what
# else the machine was doing.
IMPORT_S, HELP_S = 0.3, 0.5
TRIES = 5
HEAVY = {"cv2", "av", "openvino", "onnx", "onnxruntime", "torch"}


def best_s(command, env, folder):
    times = []
    for _ in range(TRIES):
        begun = time.perf_counter()
        assert call(command, env=env, cwd=folder).code == 0
        times.append(time.perf_counter() - begun)
    return min(times)


def imported(words, env, folder):
    """The top-level modules that a Python process imports, and how it ended."""
    done = call([sys.executable, "-X", "importtime", *words], env=env, cwd=folder)
    found = re.findall(r"^import time: +\d+ \| +\d+ \| +(\w+)", done.err, re.MULTILINE)
    assert found
    return set(found), done


def test_importing_the_package_is_quick(env, tmp_path):
    assert best_s([sys.executable, "-c", "import pipeline"], env, tmp_path) < IMPORT_S


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["--version"]], ids=" ".join)
def test_help_is_quick(env, tmp_path, words):
    assert best_s([*PROGRAM, *words], env, tmp_path) < HELP_S


def test_neither_loads_what_is_heavy(env, tmp_path):
    for words in (
        ["-c", "import pipeline"],
        ["-m", "tools.cli", "--help"],
        ["-m", "tools.cli", "run", "--help"],
    ):
        modules, done = imported(words, env, tmp_path)
        assert done.code == 0
        assert not modules & HEAVY, words


def test_a_wrong_option_does_not_load_them_either(env, tmp_path):
    modules, done = imported(["-m", "tools.cli", "run", "--loud"], env, tmp_path)
    assert done.code == 2
    assert not modules & HEAVY


def test_a_warm_start_does_without_onnx(env, tmp_path, clip):
    """The wrapped graph and the compiled network come from the cache."""
    modules, done = imported(["-m", "tools.cli", "run", clip, "--max-frames", "1"], env, tmp_path)
    assert done.code == 0, done.err
    assert "preparing" not in done.err
    assert {"cv2", "av", "openvino"} <= modules
    assert not modules & {"onnx", "onnxruntime", "torch"}


def test_a_cold_start_says_that_it_prepares(env, tmp_path, picture, colours):
    cold = {**env, "STREAMSEG_CACHE": str(tmp_path / "cache")}
    words = [*PROGRAM, "run", picture, "--model", colours]
    assert "preparing colours (once)\n" in call(words, env=cold, cwd=tmp_path).err
    assert "preparing" not in call(words, env=cold, cwd=tmp_path).err
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_without_a_cache_it_runs_all_the_same(env, tmp_path, picture, colours):
    (tmp_path / "file").touch()
    no_cache = {**env, "STREAMSEG_CACHE": str(tmp_path / "file" / "cache")}
    done = call([*PROGRAM, "run", picture, "--model", colours], env=no_cache, cwd=tmp_path)
    assert done.code == 0, done.err


def test_version(streamseg):
    from importlib.metadata import version

    done = streamseg("--version")
    assert (done.code, done.out, done.err) == (0, f"streamseg {version('streamseg')}\n", "")


@pytest.mark.parametrize("command", [[], ["run"], ["models"], ["doctor"]], ids=" ".join)
def test_every_command_has_help_with_an_example(streamseg, command):
    done = streamseg(*command, "--help")
    assert done.code == 0
    assert done.err == ""
    assert "Example" in done.out
    assert "streamseg " in done.out


def test_models(streamseg):
    done = streamseg("models", "--json")
    assert (done.code, done.err) == (0, "")
    rows = {row["name"]: row for row in json.loads(done.out)}
    families = {name.partition("/")[0] for name in rows if "/" in name}
    assert families == {name.lower() for name in ARCHITECTURES}
    assert [n for n in rows if "/" not in n] == [*shipped_models(), *NETWORKS]
    assert [name for name, row in rows.items() if row["default"]] == ["voc"]
    voc = rows["voc"]
    assert len(voc["classes"]) == 21
    assert voc["license"] == "Apache-2.0"
    assert (voc["input"]["height"], voc["input"]["width"]) == (289, 513)
    assert (voc["parameters"], voc["gmacs"]) == (2097013, 1.53)
    assert "max-image-segmenter" in voc["weights"]
    assert voc["here"] == "in the package"
    text = streamseg("models").out
    for name, row in rows.items():
        line = next(line for line in text.splitlines() if line.split(" ")[0] == name)
        for figure in (row["parameters"] / 1e6, row["gmacs"]):
            assert f"{figure:.2f}" in line
        assert row["here"] in line
        assert row["weights"] in text
        assert row["license"] in text


def test_one_model(streamseg, colours):
    text = streamseg("models", "voc").out
    assert "289x513" in text
    assert "tvmonitor" in text
    row = json.loads(streamseg("models", colours, "--json").out)
    # A 1x1 convolution of 3 channels to 4, and 4 biases, over 24x32 pixels.
    assert row["parameters"] == 3 * 4 + 4
    assert row["gmacs"] == 24 * 32 * 3 * 4 / 1e9
    assert row["here"] == str(colours)


@pytest.mark.parametrize("words", [["models", "nothing.onnx"], ["models", "no/such"]])
def test_debug_shows_where(streamseg, words):
    done = streamseg(*words)
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    again = streamseg(*words, "--debug")
    assert again.code == 1
    assert "Traceback" in again.err
    assert streamseg("doctor", "--debug").code == 0


def test_doctor(streamseg, env, session_cache):
    import av
    import cv2
    import numpy
    import openvino

    done = streamseg("doctor", "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    libraries = found["libraries"]
    assert libraries["av"] == av.__version__
    assert libraries["numpy"] == numpy.__version__
    assert cv2.__version__ in libraries["opencv-python"]
    assert found["cache"] == str(session_cache)
    if hasattr(os, "sched_getaffinity"):
        assert found["cores"] == len(os.sched_getaffinity(0))
    assert platform.python_version() in found["python"]
    devices = {row["device"]: row for row in found["engines"]["openvino"]["devices"]}
    assert devices.keys() == set(openvino.Core().available_devices)
    assert "fp32" in devices["CPU"]["precisions"]
    assert found["auto"]["engine"] == "openvino"
    assert found["auto"]["precision"] == devices["CPU"]["default"]
    text = streamseg("doctor").out
    for part in (libraries["openvino"], str(session_cache), found["encoder"], found["auto"]["why"]):
        assert part in text


def test_what_doctor_says_of_auto_is_what_run_does(streamseg, clip, tmp_path):
    auto = json.loads(streamseg("doctor", "--json").out)["auto"]
    done = streamseg("run", clip, "--max-frames", "1", "--report", "r.json", "-o", "o.mp4")
    assert done.code == 0, done
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["engine"]["name"] == auto["engine"]
    # Where there is a choice, `run` says which one it has taken.
    assert report["engine"]["precision"] in auto["precision"].replace(",", " ").split()
    assert report["engine"]["why"] == auto["why"]
    assert report["outputs"][0]["codec"] == json.loads(streamseg("doctor", "--json").out)["encoder"]


def on_terminal(words, env, folder):
    """Runs the program with stderr on a terminal; its exit code and what stood there."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    terminal = {**env, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen(
        [*PROGRAM, *map(str, words)],
        env=terminal, cwd=folder, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # Linux: the other side is closed
            break
        if not data:
            break
        seen += data
    process.stdout.read()
    process.stdout.close()
    os.close(ours)
    return process.wait(timeout=30), seen.decode(errors="replace")


@pytest.mark.skipif(sys.platform == "win32", reason="no pty")
def test_a_terminal_gets_a_bar_with_the_rate(env, tmp_path, media, colours):
    code, seen = on_terminal(
        ["run", media / "long.mp4", "--model", colours, "-o", "o.mp4"], env, tmp_path
    )
    assert code == 0, seen
    assert re.search(r"\d+/1500 frames, \d+\.\d fps, \d+ s left", seen), seen
    assert "━" in seen
    # The bar goes when it is done; what was said before it stays.
    assert seen.index("source  ") < seen.index("━")
    assert "Traceback" not in seen


@pytest.mark.skipif(sys.platform == "win32", reason="no pty")
def test_a_quiet_terminal_gets_nothing(env, tmp_path, clip, colours):
    assert on_terminal(["run", clip, "--model", colours, "--quiet"], env, tmp_path) == (0, "")


def test_a_pipe_gets_plain_lines(env, tmp_path, media):
    """One every five seconds, without a terminal's control codes."""
    process = subprocess.Popen(
        [*PROGRAM, "run", str(media / "long.mp4")],
        env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    said = []
    for line in process.stderr:
        said.append(line)
        if " fps" in line and "frames, " in line and not line.startswith("source"):
            break
    process.terminate()
    out, err = process.communicate(timeout=30)
    assert re.fullmatch(r"\d+/1500 frames, \d+\.\d fps, \d+ s left\n", said[-1]), said
    assert not re.search(r"[\x1b\r]", "".join(said) + err + out)
    assert process.returncode == 130
