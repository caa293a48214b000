"""FFmpeg's own V4L2 reader and our choice of mode, on a driver that is preloaded into the program
(camera_shim.c), for want of a camera. Its structures are the kernel's.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="V4L2 is Linux's"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc to build the stand-in with"),
    pytest.mark.skipif(
        not Path("/usr/include/linux/videodev2.h").exists(), reason="no kernel headers here"
    ),
]
DEVICE = "/dev/video97"
PROGRAM = """
import json, sys, time
from pipeline.sources import LiveOptions, open_source
options = json.loads(sys.argv[1])
if options.get("camera_size"):
    options["camera_size"] = tuple(options["camera_size"])
options = LiveOptions(**options)
def say(line):
    print(line, flush=True)
try:
    source = open_source(sys.argv[2], live=options, say=say, max_frames=int(sys.argv[3]))
    for frame in source.frames():
        print("frame", frame.pts, *frame.image.shape, *frame.image[4, ::160, 1], flush=True)
except Exception as error:
    print(type(error).__name__, error, flush=True)
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shim")
    source = Path(__file__).with_name("camera_shim.c")
    done = subprocess.run(
        ["gcc", "-shared", "-fPIC", "-Wall", "-o", folder / "shim.so", source, "-ldl"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ramp = np.tile(np.linspace(0, 255, 1280).astype(np.uint8)[None, :, None], (720, 1, 3))
    cv2.imwrite(str(folder / "ramp.jpg"), ramp)
    return folder


@pytest.fixture
def camera(shim, tmp_path):
    """Starts a program that reads the camera; gives its output as it comes."""
    started = []

    def start(frames=20, **options):
        env = {
            **os.environ, "LD_PRELOAD": str(shim / "shim.so"), "SHIM_CAMERA": DEVICE,
            "SHIM_JPEG": str(shim / "ramp.jpg"), "SHIM_GONE": str(tmp_path / "gone"),
            "SHIM_BUSY": str(tmp_path / "busy"),
        }  # fmt: skip
        words = [sys.executable, "-c", PROGRAM, json.dumps(options), DEVICE, str(frames)]
        process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("size", "mode"),
    [((480, 640), "yuyv422 640x480 at 30 fps"), (None, "mjpeg 1280x720 at 30 fps")],
)
def test_pictures_of_the_mode_that_was_chosen(camera, size, mode):
    said, *rows = camera(camera_size=size).communicate(timeout=30)[0].splitlines()
    assert said == f"camera  {DEVICE}: {mode}"
    frames = [list(map(int, row.split()[1:])) for row in rows]
    assert len(frames) == 20
    height, width = size or (720, 1280)
    assert all(row[1:4] == [height, width, 3] for row in frames)
    ramp = 255 * np.arange(0, width, 160) / width
    assert all(np.abs(np.array(row[4:]) - ramp).max() < 4 for row in frames)
    stamps = np.array([row[0] for row in frames])
    assert abs(np.median(np.diff(stamps)) - 3000) < 30, "30 a second, by the driver's clock"


def test_a_camera_that_is_unplugged_and_plugged_in_again(camera, tmp_path):
    process = camera(frames=10_000, stall_timeout_s=2.0)
    next(line for line in process.stdout if line.startswith("frame"))
    (tmp_path / "gone").touch()
    lost = next(line for line in process.stdout if not line.startswith("frame"))
    assert "lost (there is no such camera" in lost or "lost (nothing has come" in lost
    time.sleep(0.5)
    (tmp_path / "gone").unlink()
    assert "back after" in next(process.stdout)
    assert next(process.stdout).startswith("frame")


def test_a_camera_that_another_program_has(camera, tmp_path):
    (tmp_path / "busy").touch()
    said = camera().communicate(timeout=30)[0].splitlines()
    assert said[-1].startswith("SourceError")
    assert "another program is using the camera" in said[-1]
