"""What a user copies runs as it stands: the files in examples/, the snippets of the documents."""

import re
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from pipeline import segment
from tests.clips import Tone, numbered, quadrants, write_clip

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PERSON = 15
COUNT = 6


@pytest.fixture
def folder(tmp_path):
    """A clip with sound and two pictures."""
    pictures = [quadrants(), *(numbered(i) for i in range(COUNT - 1))]
    write_clip(tmp_path / "street.mp4", pictures=pictures, audio=[Tone(seconds=COUNT / 25)])
    for name, image in (("a.png", quadrants()), ("b.png", numbered(3))):
        cv2.imwrite(str(tmp_path / name), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return tmp_path


def python(*words, cwd):
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def decode(path):
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def labels_of(source):
    """Each frame's picture and class ids, by the package itself."""
    with segment(source) as frames:
        return [(frame.image.copy(), frame.labels.copy()) for frame in frames]


def test_no_example_is_left_out():
    tested = {"cutout.py", "engine.py", "frames.py", "own_stage.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


def test_frames(folder):
    lines = python(EXAMPLES / "frames.py", "street.mp4", cwd=folder).splitlines()
    assert len(lines) == COUNT
    for i, (line, (_, labels)) in enumerate(
        zip(lines, labels_of(folder / "street.mp4"), strict=True)
    ):
        share = (labels == PERSON).mean()
        assert line == f"{i / 25:7.3f} s: {share:6.1%} of the picture is a person"


def test_cutout(folder):
    python(EXAMPLES / "cutout.py", "a.png", "out.png", cwd=folder)
    out = cv2.cvtColor(cv2.imread(str(folder / "out.png")), cv2.COLOR_BGR2RGB)
    ((image, labels),) = labels_of(folder / "a.png")
    expected = np.where((labels == PERSON)[..., None], image, 255)
    np.testing.assert_array_equal(out, expected)


def test_engine(folder):
    lines = python(EXAMPLES / "engine.py", "a.png", "b.png", cwd=folder).splitlines()
    assert lines[0].startswith("EngineInfo(name='openvino'")
    assert [line.split()[0] for line in lines[1:]] == ["a.png", "b.png"]
    assert all("background" in line for line in lines[1:])


def test_own_stage(folder):
    out = python(EXAMPLES / "own_stage.py", "street.mp4", "out.mp4", cwd=folder)
    assert out == f"captured {COUNT} = delivered {COUNT} + dropped 0 + failed 0\n"
    pictures = decode(folder / "out.mp4")
    assert len(pictures) == COUNT
    for picture, (image, labels) in zip(pictures, labels_of(folder / "street.mp4"), strict=True):
        blurred = cv2.GaussianBlur(image, (0, 0), 8)
        expected = np.where((labels == PERSON)[..., None], image, blurred).astype(int)
        assert np.abs(picture - expected).mean() < 6  # the encoder's loss
        assert np.abs(picture - image.astype(int)).mean() > 6, "nothing was blurred"


def snippets(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", ["README.md", "docs/api.md"])
def test_snippets_of_the_documents(folder, name):
    """They name street.mp4, which lies in the folder, and run one after the other."""
    found = snippets(name)
    assert found, f"{name} shows no Python"
    for i, code in enumerate(found):
        # The clip is a second long, not a minute.
        code = code.replace("start_s=2, duration_s=5", "start_s=0.04, duration_s=0.12")
        script = folder / f"snippet{i}.py"
        script.write_text(code, encoding="utf-8")
        out = python(script.name, cwd=folder)
        if name == "README.md":
            assert len(out.splitlines()) == COUNT
            assert re.fullmatch(r"0\.00 s: \d+\.\d%", out.splitlines()[0])
    if name == "docs/api.md":
        assert "captured 3 = delivered 3" in out
        assert len(decode(folder / "out.mp4")) == 3
        assert (folder / "ids.mkv").is_file()


def test_documented_commands_are_accepted():
    """Every `streamseg` line of the documents names options and commands that exist."""
    lines = []
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for block in re.findall(r"^```sh\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL):
            lines += [line for line in block.splitlines() if line.startswith("streamseg ")]
    assert lines
    helps = {}
    for line in lines:
        command, *words = line.partition("#")[0].split()[1:]
        command = ["bench", "compare"] if words[:1] == ["compare"] else [command]
        if (command := " ".join(command)) not in helps:
            helps[command] = python("-m", "tools.cli", *command.split(), "--help", cwd=ROOT)
        for word in words:
            if word.startswith("-"):
                assert re.search(rf"(^|\s|, ){word}\b", helps[command]), line
