"""Networks by name on the command line: each goes build -> run on a real clip."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from engines.guard import guard_pictures
from tests.clips import write_clip
from tests.networks import make_card
from tests.tools.program import card, read_video

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytest.importorskip("segmentation_models_pytorch")
pytest.importorskip("onnxscript")

from tests.engines.zoo import NAMES, SIZE  # noqa: E402

# timm and SMP warn of each other's old names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
HEIGHT_X_WIDTH = f"{SIZE[0]}x{SIZE[1]}"
FRAMES = 3


@pytest.fixture(scope="session")
def real_clip(tmp_path_factory):
    """What `make test` fetches; where there is none, a clip of the guard's photographs."""
    named = os.environ.get("STREAMSEG_DEMO_CLIP")
    if named:
        return Path(named).resolve()
    folder = tmp_path_factory.mktemp("real")
    pictures = [p[0] for p in guard_pictures(make_card(height=272, width=640))]
    return write_clip(folder / "real.mp4", pictures=pictures)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The commands in this process: starting eighteen with torch would take minutes."""
    from tools.commands import app

    monkeypatch.chdir(tmp_path)

    def run(*words):
        done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    return run


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_is_built_and_runs(name, here, real_clip, tmp_path):
    words = ["--weights", "random", "--size", HEIGHT_X_WIDTH, "--engine", "openvino"]
    here("build", name, *words, "-o", "net.onnx", "--json", "made.json")
    made = json.loads((tmp_path / "made.json").read_text())
    assert made["card"]["name"] == name
    assert made["card"]["input"]["height"] == SIZE[0]
    assert made["guard"] is None, "random weights' highest score is noise"
    # Not `auto`, which would compile it twice to see which precision is faster.
    words = ["--model", "net.onnx", "--precision", "fp32", "--max-frames", FRAMES]
    words += ["--stats", "shares.jsonl"]
    here("run", real_clip, *words, "-o", "out.mp4", "--report", "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["model"] == name
    assert report["frames"]["delivered"] == report["frames"]["captured"] == FRAMES
    shown, source = read_video(tmp_path / "out.mp4"), read_video(real_clip)
    assert len(shown.pictures) == FRAMES
    assert shown.size == source.size
    # The overlay paints: a picture that stays as it was has no classes.
    assert np.abs(shown.pictures[0].astype(int) - source.pictures[0]).mean() > 10
    for line in (tmp_path / "shares.jsonl").read_text().splitlines():
        assert sum(json.loads(line)["classes"].values()) == pytest.approx(1, abs=1e-3)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A state dict as a training of SMP's leaves it, of 4 classes, under Lightning's names."""
    from engines.zoo.smp import make_smp

    torch.manual_seed(4)
    state = make_smp("Linknet", "tu-test_resnet", 4).state_dict()
    path = tmp_path_factory.mktemp("trained") / "trained.ckpt"
    whole = {"state_dict": {f"model.{name}": value for name, value in state.items()}}
    torch.save({**whole, "epoch": 3}, path)
    return path


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_weights_of_ones_own_run_by_name(streamseg, trained, real_clip, tmp_path):
    mine = {**card(input__height=64, input__width=96), "sha256": "0" * 64}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    words = ["run", real_clip, "--model", "linknet/tu-test_resnet", "--weights", trained]
    words += ["--card", "mine.yaml", "--max-frames", "2", "--stats", "shares.jsonl"]
    done = streamseg(*words, "--size", "96x128", timeout=300)
    assert done.code == 0, done.err
    assert "writing the network as ONNX (once)" in done.err
    assert "model   colours: 96x128, 4 classes" in done.err
    row = json.loads((tmp_path / "shares.jsonl").read_text().splitlines()[0])
    assert row["classes"].keys() <= {"background", "red", "green", "blue"}
    assert sum(row["classes"].values()) == pytest.approx(1, abs=1e-3)
    again = streamseg(*words, "--size", "96x128", "--force")
    assert again.code == 0, again.err
    assert "writing" not in again.err
    bare = streamseg(*words[:6], "--size", "96x128", "--max-frames", "1")
    assert "model   linknet/tu-test_resnet: 96x128, 4 classes" in bare.err
    config = (
        f"source: {real_clip}\nmodel: linknet/tu-test_resnet\nweights: {trained}\nsize: 96x128\n"
    )
    (tmp_path / "run.yaml").write_text(config)
    by_file = streamseg("run", "--config", "run.yaml", "--max-frames", "1")
    assert by_file.code == 0, by_file.err
    assert "linknet/tu-test_resnet: 96x128" in by_file.err


MISTAKES = [
    (["--model", "unet/resnet34"], 1, "no official weights", "--weights FILE"),
    (["--model", "unet/resnet34", "--weights", "official"], 1, "no official weights", "random"),
    (["--model", "unet/resnet34", "--weights", "none.pth"], 1, "no weights file at none.pth", ""),
    (["--model", "unet/resnet3", "--weights", "random"], 1, "near it: resnet34", ""),
    (["--model", "net/resnet34"], 1, "neither a file nor a network", "unetplusplus"),
    (["--model", "unet/a/b"], 1, "neither a file nor a network", ""),
    (["--model", "unet/none.onnx"], 1, "no model file at unet/none.onnx", ""),
    (["--model", "voc", "--weights", "random"], 1, "voc has its own weights", "unet/resnet34"),
    (["--size", "12"], 2, "height x width, such as 512x1024", ""),
    (["--size", "0x64"], 2, "height x width, such as 512x1024", ""),
    (["--model", "weights.pth"], 1, "neither .onnx nor .plan", "--weights FILE"),
]


@pytest.mark.parametrize(("words", "code", "one", "other"), MISTAKES, ids=lambda v: str(v)[:40])
def test_mistakes_are_one_clear_line(streamseg, clip, tmp_path, words, code, one, other):
    (tmp_path / "weights.pth").write_bytes(b"")
    done = streamseg("run", clip, *words)
    assert done.code == code
    text = " ".join(done.err.replace("│", " ").split())
    assert one in text
    assert other in text
    assert "bug in streamseg" not in text
    assert "Traceback" not in text
    if code == 1:
        assert done.err.count("\n") == 1
