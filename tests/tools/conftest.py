"""A clip, a picture and a network whose answer is known, made once; and the program itself."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.clips import Tone, numbered, quadrants, write_clip
from tests.tools import program


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    """A folder with the inputs that all tests share and none changes."""
    folder = tmp_path_factory.mktemp("media")
    # The upper left quadrant is red, then clockwise green, white, blue.
    write_clip(folder / "clip.mp4", pictures=[quadrants()] * 10)
    write_clip(folder / "numbered.mp4", count=25)
    write_clip(folder / "sound.mp4", count=50, audio=[Tone(seconds=2.0)])
    write_clip(folder / "long.mp4", count=1500)
    noise = np.random.default_rng(0).integers(0, 256, (100, 96, 128, 3), np.uint8)
    options = {"crf": "20", "preset": "ultrafast"}
    write_clip(folder / "noise.mkv", pictures=list(noise), options=options)
    cv2.imwrite(str(folder / "picture.png"), cv2.cvtColor(quadrants(), cv2.COLOR_RGB2BGR))
    (folder / "photos").mkdir()
    for i in range(4):
        cv2.imwrite(str(folder / "photos" / f"photo{i}.png"), np.ascontiguousarray(numbered(i)))
    program.save_colours(folder)
    return folder


@pytest.fixture(scope="session")
def clip(media):
    return media / "clip.mp4"


@pytest.fixture(scope="session")
def picture(media):
    return media / "picture.png"


@pytest.fixture(scope="session")
def colours(media):
    return media / "colours.onnx"


@pytest.fixture(scope="session")
def warm_cache(session_cache, media, clip, colours, tmp_path_factory):
    """The cache of the session, with both networks in it."""
    env = program.environment(session_cache)
    for model in ("voc", colours):
        words = [*program.PROGRAM, "run", clip, "--max-frames", "1", "--model", model]
        done = program.call(words, env=env, cwd=tmp_path_factory.mktemp("warm"), timeout=120)
        assert done.code == 0, done.err
    return session_cache


@pytest.fixture(scope="session")
def env(warm_cache):
    return program.environment(warm_cache)


@pytest.fixture
def streamseg(env, tmp_path):
    """Runs the program with these words, in the test's own folder."""

    def run(*words, timeout=60, **more_env):
        return program.call(
            [*program.PROGRAM, *words],
            env={**env, **{k: str(v) for k, v in more_env.items()}},
            cwd=tmp_path,
            timeout=timeout,
        )

    return run
