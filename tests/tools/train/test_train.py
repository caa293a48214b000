"""`streamseg train` as its users run it: from labelled pictures to a network that runs."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import yaml

for module in ("torch", "torchvision", "segmentation_models_pytorch", "onnxscript"):
    pytest.importorskip(module)

from engines.errors import EngineError  # noqa: E402
from tests.tools import program  # noqa: E402
from tests.tools.labelled import NAMES, save, save_pairs, scene  # noqa: E402
from tests.tools.train.training import read_log, write_config  # noqa: E402
from tools.errors import ToolError  # noqa: E402
from tools.train.config import read_config  # noqa: E402
from tools.train.session import train  # noqa: E402

TRAIN = [*program.PROGRAM, "train"]
LONG = {
    "epochs": 12,
    "precision": "bf16",
    "export__license": "MIT",
    "export__weights": "fp16",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return save_pairs(tmp_path_factory.mktemp("data"), train=12, val=4)


@pytest.fixture(scope="module")
def environment(session_cache):
    # One thread: numbers do not depend on how many cores the machine has.
    return program.environment(session_cache, OMP_NUM_THREADS="1")


@pytest.fixture
def start(environment, tmp_path, data):
    """Runs `train` with CONFIG and some changes."""

    def run(*words, config=None, timeout=110, before=TRAIN, **changes):
        path = config or write_config(tmp_path, data, **changes)
        command = [*before, path, "--out", "out", *words]
        return program.call(command, env=environment, cwd=tmp_path, timeout=timeout)

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory, environment, data):
    """A folder with a finished training of twelve epochs in out/, and how it ended."""
    folder = tmp_path_factory.mktemp("trained")
    config = write_config(folder, data, **LONG)
    command = [*TRAIN, config, "--out", "out"]
    return folder, program.call(command, env=environment, cwd=folder, timeout=300)


def wait_for(path, seconds=60):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not appear"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.timeout(400)
class TestWholeWay:
    def test_it_says_what_it_does(self, trained):
        folder, done = trained
        assert done.code == 0, done.err
        lines = done.err.splitlines()
        assert lines[0].startswith("train  pairs train in ")
        assert "12 pairs, 32x24, in memory" in lines[0]
        assert any(re.match(r" +red +\d+\.\d\d% #", line) for line in lines)
        epochs = [line for line in lines if re.match(r"epoch \d+/12  loss", line)]
        assert len(epochs) == 12
        assert "left" in epochs[0]
        assert lines[-1] == "wrote  out/thin.onnx and thin.yaml"
        names = {path.name for path in (folder / "out").iterdir()}
        expected = {"thin.onnx", "thin.yaml", "log.csv", "checkpoint.pt", "config.yaml"}
        assert expected | {"samples.png"} <= names <= expected | {"samples.png", "curves.png"}

    def test_it_learns(self, trained):
        folder, _ = trained
        log = read_log(folder / "out")
        assert [row["epoch"] for row in log] == [str(i) for i in range(1, 13)]
        assert float(log[-1]["train_loss"]) < 0.6 * float(log[0]["train_loss"])
        card = yaml.safe_load((folder / "out" / "thin.yaml").read_text(encoding="utf-8"))
        assert card["metrics"]["miou"] > 0.5
        assert card["metrics"]["miou"] == max(round(float(row["val_miou"]), 4) for row in log)
        assert card["classes"] == list(NAMES)
        assert card["license"] == "MIT"

    def test_evaluate_finds_the_card_s_figures(self, trained, environment, data):
        folder, _ = trained
        words = ["evaluate", data, "--layout", "pairs", "--split", "val", "--precision", "fp32"]
        words += ["--model", "out/thin.onnx", "--json", "found.json", "--force", "--quiet"]
        done = program.call([*program.PROGRAM, *words], env=environment, cwd=folder)
        assert done.code == 0, done.err
        found = json.loads((folder / "found.json").read_text(encoding="utf-8"))
        card = yaml.safe_load((folder / "out" / "thin.yaml").read_text(encoding="utf-8"))
        # The file's weights are rounded to FP16, the card's figures are of those in FP32.
        assert found["miou"] == pytest.approx(card["metrics"]["miou"], abs=0.01)
        best = read_log(folder / "out")[card["metrics"]["epoch"] - 1]
        for name in NAMES:
            assert found["classes"][name]["iou"] == pytest.approx(
                float(best[f"val_iou_{name}"]), abs=0.02
            )

    def test_run_takes_the_model(self, trained, environment, tmp_path):
        folder, _ = trained
        image, ids = scene(1001)
        save(tmp_path / "picture.png", image)
        words = ["run", "picture.png", "--mask", "ids.png", "--model", folder / "out" / "thin.onnx"]
        done = program.call([*program.PROGRAM, *words], env=environment, cwd=tmp_path)
        assert done.code == 0, done.err
        painted = cv2.cvtColor(cv2.imread(str(tmp_path / "ids.png")), cv2.COLOR_BGR2RGB)
        background = (painted == 0).all(2)
        assert (background == (ids == 0))[ids != 255].mean() > 0.7

    def test_half_the_size(self, trained):
        folder, _ = trained
        import onnx

        weights = onnx.load(str(folder / "out" / "thin.onnx")).graph.initializer
        kinds = {t.data_type for t in weights if t.dims and np.prod(t.dims) > 1}
        assert onnx.TensorProto.FLOAT not in kinds

    def test_another_training_starts_where_it_ended(self, trained, environment, data, tmp_path):
        folder, _ = trained
        changes = {"epochs": 1, "ema": None, "optimizer__lr": 1e-9}
        config = write_config(tmp_path, data, start=str(folder / "out/checkpoint.pt"), **changes)
        command = [*TRAIN, config, "--out", "out"]
        done = program.call(command, env=environment, cwd=tmp_path, timeout=200)
        assert done.code == 0, done.err
        before = max(float(row["val_miou"]) for row in read_log(folder / "out"))
        # The norms' statistics move even where the weights do not.
        assert float(read_log(tmp_path / "out")[0]["val_miou"]) > before - 0.15
        thin = {"network__options": {"encoder_depth": 3, "decoder_channels": [16, 16, 4]}}
        config = write_config(
            tmp_path, data, start=str(folder / "out/checkpoint.pt"), **changes, **thin
        )
        done = program.call([*TRAIN, config, "--out", "two"], env=environment, cwd=tmp_path)
        assert done.code == 1
        assert "checkpoint.pt is of another network: decoder." in done.err.splitlines()[-1]

    def test_nothing_is_overwritten_unasked(self, trained, environment, data):
        folder, _ = trained
        command = [*TRAIN, folder / "train.yaml", "--out", "out"]
        done = program.call(command, env=environment, cwd=folder)
        assert done.code == 1
        assert "out holds a training already: --resume goes on" in done.err
        log = (folder / "out" / "log.csv").read_bytes()
        changed = write_config(folder, data, **LONG, optimizer__lr=0.5)
        done = program.call(
            [*TRAIN, changed, "--out", "out", "--resume"], env=environment, cwd=folder
        )
        assert done.code == 1
        assert "other values of optimizer.lr; change them back" in done.err
        assert (folder / "out" / "log.csv").read_bytes() == log


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_and_resumed_is_as_never_killed(trained, environment, tmp_path, data):
    """Also: the same seed gives the same numbers, and the same file byte by byte."""
    config = write_config(tmp_path, data, **LONG)
    command = [str(word) for word in (*TRAIN, config, "--out", "killed", "--quiet")]
    running = subprocess.Popen(command, env=environment, cwd=tmp_path)
    wait_for(tmp_path / "killed" / "checkpoint.pt")
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "thin.onnx").exists()
    again = [*TRAIN, config, "--out", "killed", "--resume"]
    done = program.call(again, env=environment, cwd=tmp_path, timeout=110)
    assert done.code == 0, done.err
    assert "resume after epoch" in done.err
    never = trained[0] / "out"
    assert read_log(tmp_path / "killed") == read_log(never)
    for name in ("thin.onnx", "thin.yaml"):
        one, two = never / name, tmp_path / "killed" / name
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_the_last_checkpoint(environment, tmp_path, data, number):
    config = write_config(tmp_path, data, epochs=10_000)
    command = [str(word) for word in (*TRAIN, config, "--out", "out")]
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as running:
        wait_for(tmp_path / "out" / "log.csv")
        running.send_signal(number)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in err
    assert "checkpoint.pt holds the last whole epoch: --resume goes on from there" in err
    import torch

    kept = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)
    assert kept["epoch"] >= 1
    assert len(kept["history"]) == kept["epoch"] == len(read_log(tmp_path / "out"))
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_processes_learn_what_one_does(start, environment, tmp_path, data):
    """Batches of 1 in two processes, two of them a step, and 4 at once are one and the same, where
    the norms do not look at the batch and no pixel is void.
    """
    clean = tmp_path / "clean"
    for split, count in (("train", 12), ("val", 3)):
        for i in range(count):
            image, ids = scene(i, height=64, width=64)
            ids[:2] = 0
            save(clean / "images" / split / f"{i}.png", image)
            save(clean / "masks" / split / f"{i}.png", ids)
    (clean / "classes.txt").write_text("\n".join(NAMES), encoding="utf-8")
    changes = {
        "network__architecture": "FPN",
        "network__encoder": "tu-test_efficientnet_ln",
        "network__options": {"decoder_dropout": 0.0},
        "input__size": [64, 64],
        "augment__scale": [1.0, 1.5],
        "losses": [{"kind": "cross_entropy"}],
        # Not AdamW, whose first steps turn a gradient's rounding into a whole step.
        "optimizer": {"kind": "sgd", "lr": 0.02},
        "epochs": 2,
    }
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun += ["--master-port", str(29500 + os.getpid() % 1000), "-m", "tools.cli", "train"]
    logs = {}
    for name, before, more in (
        ("one", TRAIN, {"batch": 4}),
        ("two", torchrun, {"batch": 1, "accumulate": 2}),
    ):
        config = write_config(tmp_path, clean, **changes, **more)
        command = [*before, config, "--out", name]
        done = program.call(command, env=environment, cwd=tmp_path, timeout=120)
        assert done.code == 0, done.err
        logs[name] = read_log(tmp_path / name)
        assert (tmp_path / name / "thin.onnx").exists()
        assert done.err.count("wrote  ") == 1
    for one, other in zip(logs["one"], logs["two"], strict=True):
        for key in ("train_loss", "val_loss", "val_miou"):
            assert float(other[key]) == pytest.approx(float(one[key]), rel=1e-3), key


@pytest.mark.slow
def test_torchvision_s_networks_learn_from_what_they_knew(start, tmp_path):
    """From weights for 21 classes to four: the head begins anew, the rest goes on."""
    import torch

    from engines.zoo.torchvision import make_torchvision

    before = make_torchvision("lraspp_mobilenet_v3_large", 21, "random").network.state_dict()
    torch.save(before, tmp_path / "before.pth")
    network = {
        "library": "torchvision",
        "architecture": "lraspp_mobilenet_v3_large",
        "weights": str(tmp_path / "before.pth"),
    }
    changes = {"network": network, "epochs": 1, "ema": None, "optimizer__encoder_lr_factor": 0.0}
    done = start(**changes)
    assert done.code == 0, done.err
    assert "torchvision's lraspp_mobilenet_v3_large" in done.err
    assert (tmp_path / "out" / "thin.onnx").exists()
    after = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)["network"]
    name = "backbone.0.0.weight"
    assert torch.equal(after[f"network.{name}"], before[name])
    torch.save({"backbone.0.0.weight": before[name]}, tmp_path / "before.pth")
    done = start("--out", "other", **changes)
    assert done.code == 1
    assert "before.pth: backbone.0.1.weight is missing" in done.err.splitlines()[-1]


def test_faulty_files_are_all_named(start, tmp_path):
    data = save_pairs(tmp_path / "bad", train=4, val=2)
    (data / "masks" / "train" / "p0.png").unlink()
    save(data / "masks" / "train" / "p1.png", np.full((24, 32), 9, np.uint8))
    config = write_config(tmp_path, data)
    done = start(config=config)
    assert done.code == 1
    faults = [line for line in done.err.splitlines() if line.startswith("fault   ")]
    assert len(faults) == 2
    assert "p0.png has no mask" in faults[0]
    assert "p1.png has the value 9" in faults[1]
    assert done.err.splitlines()[-1].startswith("error: pairs train in ")
    assert not (tmp_path / "out" / "log.csv").exists()


FPN = {"network__architecture": "FPN", "network__options": {}, "input__size": [32, 32]}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (FPN | {"input__size": [25, 32]}, "input.size [25, 32] does not suit the network"),
        (FPN | {"augment__crop": [30, 32]}, "augment.crop [30, 32] does not suit the network"),
        ({"batch": 99}, "a step needs 99 pictures (batch 99 x accumulate 1 x 1 processes)"),
        ({"network__encoder": "mobilenet_v9"}, "encoder 'mobilenet_v9' is unknown"),
        ({"network__weights": "none.pth"}, "no weights at none.pth"),
        (
            {"network__architecture": "DeepLabV3", "network__options": {}} | {"batch": 1},
            "batch: this network does not learn from 1 picture",
        ),
        ({"device": "cuda"}, "torch finds no GPU"),
    ],
)
def test_mistakes_are_one_line(data, changes, text, tmp_path):
    if "device" in changes:
        import torch

        if torch.cuda.is_available():
            pytest.skip("there is a GPU")
    config = read_config(write_config(tmp_path, data, **changes))
    with pytest.raises((ToolError, EngineError)) as caught:
        train(config, tmp_path / "out", resume=False, quiet=True, say=print)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_usage(start, tmp_path, environment):
    done = start(config=tmp_path / "none.yaml")
    assert done.code == 2
    assert "none.yaml cannot be read" in " ".join(done.err.replace("│", " ").split())
    done = start("--resume")
    assert done.code == 1
    assert "no checkpoint at out/checkpoint.pt; leave out --resume to begin" in done.err
    done = program.call([*TRAIN, "--help"], env=environment, cwd=tmp_path)
    assert done.code == 0
    assert "Example" in done.out
