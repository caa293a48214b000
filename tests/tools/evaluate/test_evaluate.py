"""`streamseg evaluate` as its users run it, with a network whose answer is known."""

import csv
import json
import signal
import subprocess

import cv2
import numpy as np
import pytest
import yaml

from tests.clips import write_clip
from tests.tools import program
from tests.tools.labelled import COLOURS, NAMES, save, save_pairs, scene
from tools.data.labelled import read_mask
from tools.evaluate.metrics import Confusion, scores
from tools.evaluate.report import print_table

SCORES = ("iou", "dice", "accuracy", "boundary_f")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures at the size of the network `colours`, which answers as the truth has it."""
    return save_pairs(tmp_path_factory.mktemp("labelled"), train=1, val=5)


@pytest.fixture
def evaluate(streamseg, colours, tmp_path):
    """Runs `evaluate` and returns how it ended and the figures."""

    def run(*words, model=colours, code=0):
        done = streamseg("evaluate", *words, "--model", model, "--json", "out.json", "--force")
        assert done.code == code, done.err
        path = tmp_path / "out.json"
        return done, json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    return run


def renamed(colours, tmp_path, names):
    """The network `colours` with other names for its classes."""
    path = tmp_path / "renamed.onnx"
    path.write_bytes(colours.read_bytes())
    path.with_suffix(".yaml").write_text(
        yaml.safe_dump(program.card(classes=list(names))), encoding="utf-8"
    )
    return path


def test_what_is_right_is_right(evaluate, data):
    done, found = evaluate(data, "--layout", "pairs", "--split", "val")
    for key in ("miou", "pixel_accuracy", "mean_accuracy", "mean_dice", "boundary_f"):
        assert found[key] == 1.0, key
    assert list(found["classes"]) == list(NAMES)
    assert all(row[key] == 1.0 for row in found["classes"].values() for key in SCORES)
    assert found["schema"] == 1
    assert found["pictures"] == 5
    assert found["pixels"] == {"compared": 5 * 22 * 32, "void": 5 * 2 * 32, "left_out": 0}
    assert found["void"]["rule"] == "ignore"
    assert found["fps"] > 0
    assert found["model"] == "colours"
    assert found["engine"]["name"] == "openvino"
    assert "by id: the data set has the model's classes" in done.err
    assert "mean" in done.out
    assert "100.00" in done.out


def test_void_as_error_counts_what_is_called_a_class_there(evaluate, data):
    _, found = evaluate(data, "--layout", "pairs", "--split", "val", "--void", "error")
    counted = Confusion(4)
    for i in range(5):
        image, ids = scene(1000 + i)
        # The network's answer: the nearest colour.
        away = ((image[..., None, :].astype(int) - COLOURS) ** 2).sum(-1)
        counted.add(ids, away.argmin(-1).astype(np.uint8))
    expected = scores(counted.counts, "error")
    assert expected.miou < 1
    assert found["miou"] == pytest.approx(expected.miou)
    assert found["pixel_accuracy"] == pytest.approx(22 / 24)
    assert [row["iou"] for row in found["classes"].values()] == pytest.approx(list(expected.iou))


def test_a_wrong_answer_is_scored(evaluate, data, colours, tmp_path):
    """Red and green change places: by name they are compared with each other."""
    swapped = renamed(colours, tmp_path, ("background", "green", "red", "blue"))
    done, found = evaluate(data, "--layout", "pairs", "--split", "val", model=swapped)
    assert found["classes"]["red"]["iou"] == found["classes"]["green"]["iou"] == 0
    assert found["classes"]["blue"]["iou"] == found["classes"]["background"]["iou"] == 1
    assert found["miou"] == pytest.approx(0.5)
    assert "by name: 4 classes that both have" in done.err


def test_classes_that_only_one_side_has(evaluate, data, colours, tmp_path):
    model = renamed(colours, tmp_path, ("Background", "RED", "lime", "blue"))
    done, found = evaluate(data, "--layout", "pairs", "--split", "val", model=model)
    assert list(found["classes"]) == ["background", "red", "blue"]
    assert found["match"]["left_out"] == ["green"]
    assert found["match"]["extra"] == ["lime"]
    assert found["pixels"]["left_out"] > 0
    assert found["miou"] == 1.0  # green is called lime, and counts nowhere
    assert "left out, the model has not: green" in done.err
    assert "the data has not: lime" in done.err


def test_data_without_names_has_the_model_s_ids(evaluate, tmp_path):
    unnamed = save_pairs(tmp_path / "unnamed", train=0, val=2, names=None)
    done, found = evaluate(unnamed, "--layout", "pairs", "--split", "val")
    assert found["miou"] == 1.0
    assert "its ids are taken for the model's" in done.err
    save(unnamed / "masks" / "val" / "p0.png", np.full((24, 32), 4, np.uint8))
    done, _ = evaluate(unnamed, "--layout", "pairs", "--split", "val", code=1)
    assert "p0.png has the value 4 (first at x 0, y 0); allowed are 0 to 3" in done.err


def test_labels_come_back_to_the_picture_s_size_as_run_writes_them(
    evaluate, streamseg, colours, tmp_path
):
    large = save_pairs(tmp_path / "large", train=0, val=2, height=100, width=140)
    words = ("--precision", "fp32", "--model", colours)
    done = streamseg("run", large / "images" / "val", "--mask", "ids/", *words)
    assert done.code == 0, done.err
    counted = Confusion(4)
    for i in range(2):
        counted.add(scene(1000 + i, 100, 140)[1], read_mask(tmp_path / "ids" / f"p{i}.png"))
    _, found = evaluate(large, "--layout", "pairs", "--split", "val", "--precision", "fp32")
    assert found["miou"] == pytest.approx(scores(counted.counts).miou, abs=1e-12)
    assert 0.8 < found["miou"] < 1
    assert found["pixels"]["compared"] == 2 * 98 * 140


def test_figures(evaluate, data, colours, tmp_path):
    pytest.importorskip("matplotlib")
    swapped = renamed(colours, tmp_path, ("background", "green", "red", "blue"))
    words = (data, "--layout", "pairs", "--split", "val", "--figures", "figures")
    evaluate(*words, model=swapped)
    folder = tmp_path / "figures"
    with (folder / "confusion.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["truth", *NAMES, "(other)"]
    assert [row[0] for row in rows[1:]] == [*NAMES, "(void)"]
    counts = np.array([[int(v) for v in row[1:]] for row in rows[1:]])
    assert counts.sum() == 5 * 24 * 32
    assert counts[1, 2] > 0  # red is called green
    assert counts[1, 1] == 0
    assert cv2.imread(str(folder / "confusion.png")).shape[0] > 300
    worst = cv2.imread(str(folder / "worst.png"))
    assert worst.shape == (5 * (360 + 22), 3 * 480, 3)


def test_video_with_labels_of_every_nth_frame(evaluate, tmp_path):
    pictures, labels = [], tmp_path / "labels"
    for i in range(9):
        image, ids = scene(i // 4, height=96, width=128)
        pictures.append(np.ascontiguousarray(image))
        if i % 4 == 0:
            save(labels / f"{i // 4}.png", ids)
    write_clip(tmp_path / "clip.mkv", pictures=pictures, options={"crf": "5"})
    words = ("clip.mkv", "--labels", "labels", "--every", "4")
    done, found = evaluate(*words)
    assert found["pictures"] == 3
    assert found["miou"] > 0.8
    done, _ = evaluate("clip.mkv", "--labels", "labels", "--every", "5", code=1)
    assert "ends before frame 10, which labels/2.png is for" in done.err
    save(labels / "1.png", np.zeros((4, 4), np.uint8))
    done, _ = evaluate(*words, code=1)
    assert "1.png is 4x4, but a frame of clip.mkv is 128x96" in done.err


def test_flicker_of_a_video(evaluate, tmp_path):
    """The picture stands still; a part of it is red on every other frame."""
    pictures = [np.full((96, 128, 3), COLOURS[0], np.uint8) for _ in range(7)]
    for picture in pictures[1::2]:
        # Just nearer to red: what was there is still recognised.
        picture[20:60, 30:60] = 0.48 * COLOURS[0] + 0.52 * COLOURS[1]
    write_clip(tmp_path / "clip.mkv", pictures=pictures, codec="ffv1")
    done, found = evaluate("clip.mkv", "--flicker")
    assert found["pictures"] == 0
    assert found["miou"] is None
    assert found["flicker"]["pairs"] == 6
    assert found["flicker"]["score"] == pytest.approx(40 * 30 / (96 * 128), rel=0.2)
    assert "flicker" in done.out
    assert "IoU" not in done.out
    labels = tmp_path / "labels"
    for i in range(2):
        save(labels / f"{i}.png", np.zeros((96, 128), np.uint8))
    _, both = evaluate("clip.mkv", "--labels", "labels", "--every", "2", "--flicker")
    assert both["flicker"] == found["flicker"]
    assert both["pictures"] == 2
    assert both["pixel_accuracy"] == 1


def test_smoothing_costs_nothing_where_labels_are_true(evaluate, tmp_path):
    """A red square moves over the grey, equally bright, and the network is wrong in a corner of
    every third frame: what moves must be as right as before, what only flickers must be better.
    """
    pictures, labels = [], tmp_path / "labels"
    for i in range(12):
        picture = np.full((96, 128, 3), COLOURS[0], np.uint8)
        truth = np.zeros((96, 128), np.uint8)
        picture[32:64, 8 * i : 8 * i + 32], truth[32:64, 8 * i : 8 * i + 32] = COLOURS[1], 1
        # At the edge of being red, a little to this side and to that.
        share = 0.29 + 0.03 * (i % 3 == 2)
        picture[80:, 96:] = (1 - share) * COLOURS[0] + share * COLOURS[1]
        pictures.append(picture)
        save(labels / f"{i:02d}.png", truth)
    write_clip(tmp_path / "clip.mkv", pictures=pictures, codec="ffv1")
    words = ("clip.mkv", "--labels", "labels", "--flicker")
    _, raw = evaluate(*words)
    _, smoothed = evaluate(*words, "--smooth")
    assert (raw["smooth"], smoothed["smooth"]) == (False, True)
    assert smoothed["flicker"]["score"] < raw["flicker"]["score"] / 4
    assert smoothed["miou"] > raw["miou"]
    assert smoothed["classes"]["red"]["iou"] > 0.95


def test_mistakes_are_one_line(streamseg, data, colours, tmp_path):
    cases = (
        ([data, "--layout", "pairs", "--flicker"], "--flicker is of a video's frames"),
        ([data, "--layout", "pairs", "--smooth"], "--smooth is of a video's frames"),
        (["none.mp4", "--flicker"], "none.mp4"),
        ([data], "how", "name a --layout"),
        ([data, "--layout", "pairs", "--split", "none"], "no folder at", "none"),
        ([data / "none", "--layout", "pairs"], "no folder at", "none"),
        (["clip.mp4", "--labels", "none"], "no folder of labels at", "none"),
    )
    for words, *texts in cases:
        done = streamseg("evaluate", *words, "--model", colours)
        assert done.code == 1, done.err
        last = done.err.splitlines()[-1]
        assert last.startswith("error: ")
        assert all(text in last for text in texts), last
    done = streamseg("evaluate", data, "--layout", "coco")
    assert done.code == 2
    (tmp_path / "there.json").write_text("mine", encoding="utf-8")
    words = (data, "--layout", "pairs", "--split", "val", "--model", colours)
    done = streamseg("evaluate", *words, "--json", "there.json")
    assert done.code == 1
    assert "there.json exists; --force overwrites it" in done.err
    assert (tmp_path / "there.json").read_text(encoding="utf-8") == "mine"


def test_quiet_prints_nothing(streamseg, data, colours):
    words = (data, "--layout", "pairs", "--split", "val", "--model", colours, "--quiet")
    done = streamseg("evaluate", *words)
    assert (done.code, done.out, done.err) == (0, "", "")


def test_an_interrupt_writes_nothing(env, colours, tmp_path):
    many = save_pairs(tmp_path / "many", train=0, val=400, height=240, width=320)
    words = [*program.PROGRAM, "evaluate", many, "--layout", "pairs", "--split", "val"]
    words += ["--model", colours, "--json", "out.json"]
    with subprocess.Popen(
        [str(w) for w in words], env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as running:
        for line in running.stderr:
            if line.startswith("match "):
                break
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in err
    assert not (tmp_path / "out.json").exists()


def test_the_table_has_a_dash_where_there_is_no_value(capsys):
    empty = {"iou": None, "dice": None, "accuracy": None, "boundary_f": None, "pixels": 0}
    print_table(
        {
            "classes": {"a": empty, "b": empty},
            "pixels": {"compared": 0, "void": 10, "left_out": 0},
            "void": {"rule": "ignore", "means": "they count nowhere"},
            "miou": None,
            "mean_dice": None,
            "mean_accuracy": None,
            "pixel_accuracy": None,
            "boundary_f": None,
            "fps": 0.0,
            "pictures": 1,
            "flicker": None,
        }
    )
    out = capsys.readouterr().out
    assert out.splitlines()[1].split() == ["a", "-", "-", "-", "-", "-"]
    assert "void   100.00% of the pixels" in out


@pytest.mark.parametrize("text", ["guided", "crf"])
def test_refined_labels_are_scored_and_the_figures_say_so(evaluate, data, text):
    done, found = evaluate(data, "--layout", "pairs", "--split", "val", "--refine", text)
    assert found["engine"]["refine"].startswith(f"{text}:scale=1,")
    assert f"refine  {found['engine']['refine']}" in done.err
    # A score is of a cell of 4 x 4 pixels now, so that small areas are not all right.
    assert 0.3 < found["miou"] < 1


def test_a_refinement_that_is_none_is_told_before_anything_is_read(evaluate):
    done, _ = evaluate("nowhere", "--layout", "pairs", "--refine", "sharp", code=1)
    assert "error: refine 'sharp' is unknown; allowed: none, guided, crf" in done.err
