"""What a user can get wrong: one line that says what and why, the right code, nothing broken."""

import json
import os
import re
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import av
import cv2
import numpy as np
import onnx
import pytest
import yaml

from tests import networks
from tests.clips import Tone, write_clip, write_tone
from tests.tools.program import PROGRAM, call, card, count_frames, save_colours, snapshot

FAILED, USAGE = 1, 2
LEAST = 15
"""A line shorter than this cannot say what was wrong."""


def assert_one_line(done, *says):
    """Exit code 1 and one line, which says all of these."""
    assert done.code == FAILED, done
    assert len(done.rest) == 1, done.err
    (line,) = done.rest
    assert line.startswith("error: "), done.err
    assert done.err.endswith(f"{line}\n"), "the error must come last"
    assert len(line) > LEAST
    assert "bug in streamseg" not in line, line
    for word in says:
        assert word in line, line


def assert_usage(done, *says):
    """Exit code 2, with the usage and one message, which says all of these."""
    assert done.code == USAGE, done
    assert done.err.startswith("Usage: ")
    assert "Traceback" not in done.err
    message = " ".join(done.err.split())
    for word in says:
        assert word in message, done.err


@pytest.fixture
def fails(streamseg, clip, colours, tmp_path):
    """Runs what must fail; afterwards the folder must be what it was."""

    def run(*words, source=clip, model=colours):
        before = snapshot(tmp_path)
        source = [source] if source is not None else []
        model = ["--model", model] if model is not None else []
        done = streamseg("run", *source, *model, *words)
        assert snapshot(tmp_path) == before
        assert done.out == ""
        return done

    return run


class TestSource:
    def test_missing(self, fails):
        assert_one_line(fails("-o", "o.mp4", source="nowhere.mp4"), "nowhere.mp4")

    def test_empty(self, fails, tmp_path):
        (tmp_path / "empty.mp4").touch()
        assert_one_line(fails("-o", "o.mp4", source="empty.mp4"), "empty.mp4", "empty")

    def test_cut_off_before_its_index(self, fails, tmp_path, clip):
        """An MP4 whose writer was killed has no index (moov) at its end."""
        data = clip.read_bytes()
        (tmp_path / "cut.mp4").write_bytes(data[: data.index(b"moov") - 4])
        assert_one_line(fails("-o", "o.mp4", source="cut.mp4"), "cut.mp4")

    def test_corrupt(self, fails, tmp_path):
        noise = np.random.default_rng(1).integers(0, 256, 50_000, np.uint8)
        (tmp_path / "noise.mp4").write_bytes(noise.tobytes())
        assert_one_line(fails("-o", "o.mp4", source="noise.mp4"), "noise.mp4")

    def test_no_frame_can_be_decoded(self, fails, tmp_path, clip):
        data = bytearray(clip.read_bytes())
        begin = data.index(b"mdat") + 4
        end = data.index(b"moov", begin) - 4
        data[begin:end] = bytes(end - begin)
        (tmp_path / "zeros.mp4").write_bytes(data)
        assert_one_line(fails("-o", "o.mp4", source="zeros.mp4"), "zeros.mp4")

    def test_audio_only(self, fails, tmp_path):
        write_tone(tmp_path / "tone.m4a", Tone())
        assert_one_line(fails("-o", "o.mp4", source="tone.m4a"), "no video", "audio")

    def test_text_called_mp4(self, fails, tmp_path):
        (tmp_path / "text.mp4").write_text("This is not a film.\n" * 100)
        assert_one_line(fails("-o", "o.mp4", source="text.mp4"), "text.mp4")

    def test_text(self, fails, tmp_path):
        (tmp_path / "notes.txt").write_text("This is not a film.\n" * 100)
        assert_one_line(fails("-o", "o.mp4", source="notes.txt"), "notes.txt")

    def test_folder_without_images(self, fails, tmp_path):
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "notes.txt").write_text("none here")
        assert_one_line(fails("-o", "o/", source="folder"), "folder", ".png")

    def test_glob_without_matches(self, fails):
        assert_one_line(fails("-o", "o/", source="*.png"), "*.png")

    def test_corrupt_image(self, fails, tmp_path, picture):
        (tmp_path / "half.png").write_bytes(picture.read_bytes()[:60])
        assert_one_line(fails("-o", "o.png", source="half.png"), "half.png", "decoded")

    @pytest.mark.parametrize("camera", ["0", "/dev/video97"])
    def test_camera(self, fails, camera):
        assert_one_line(fails("-o", "o.mp4", source=camera), "there is no such camera")

    def test_url(self, fails):
        assert_one_line(fails("-o", "o.mp4", source="ftp://cam.local/1"), "ftp", "allowed: rtsp")

    def test_stream_that_nobody_sends(self, fails):
        done = fails("-o", "o.mp4", source="rtsp://me:s3cr3t@127.0.0.1:9/1")
        assert_one_line(done, "rtsp://***@127.0.0.1:9/1", "connection refused")
        assert "s3cr3t" not in done.out + done.err

    def test_latency_of_a_file(self, fails, clip):
        assert_one_line(fails("-o", "o.mp4", "--max-latency", "100", source=clip), "live sources")

    @pytest.mark.parametrize("value", ["-1", "always", "1.5"])
    def test_reconnect(self, fails, value):
        assert_usage(fails("--reconnect", value), "--reconnect")

    def test_none(self, fails):
        assert_usage(fails(source=None), "SOURCE")

    def test_start_behind_the_end(self, fails):
        assert_one_line(fails("-o", "o.mp4", "--start", "100"), "100")


class TestOutput:
    @pytest.mark.parametrize(
        ("option", "name"),
        [
            ("-o", "o.mp4"),
            ("-o", "o.mkv"),
            ("--mask", "m.mkv"),
            ("--stats", "s.jsonl"),
            ("--report", "r.json"),
        ],
    )
    def test_exists(self, fails, tmp_path, option, name):
        (tmp_path / name).write_text("precious")
        assert_one_line(fails(option, name), name, "--force")

    def test_image_exists(self, fails, tmp_path, picture):
        (tmp_path / "o.png").write_text("precious")
        assert_one_line(fails("-o", "o.png", source=picture), "o.png", "--force")

    def test_folder_is_not_empty(self, fails, tmp_path):
        (tmp_path / "o").mkdir()
        (tmp_path / "o" / "000000.png").write_text("precious")
        assert_one_line(fails("-o", "o/"), "not empty", "--force")

    def test_nothing_is_written_if_any_cannot_be(self, fails, tmp_path):
        (tmp_path / "s.jsonl").write_text("precious")
        done = fails("-o", "o.mp4", "-o", "folder/", "--mask", "m.mkv", "--stats", "s.jsonl")
        assert_one_line(done, "s.jsonl", "--force")

    @pytest.mark.parametrize(
        ("option", "name"),
        [
            ("-o", "none/o.mp4"),
            ("-o", "none/o/"),
            ("-o", "none/o/%06d.png"),
            ("--mask", "none/m.mkv"),
            ("--stats", "none/s.jsonl"),
            ("--report", "none/r.json"),
        ],
    )
    def test_folder_is_missing(self, fails, option, name):
        assert_one_line(fails(option, name), "folder none")

    def test_is_a_folder(self, fails, tmp_path):
        (tmp_path / "o.mp4").mkdir()
        assert_one_line(fails("-o", "o.mp4"), "o.mp4 is a folder")

    @pytest.mark.parametrize(
        "words", [["-o", "link.mp4"], ["-o", "link.mp4", "--force"], ["--report", "link.mp4"]]
    )
    def test_is_the_source(self, fails, tmp_path, clip, words):
        shutil.copy(clip, tmp_path / "in.mp4")
        (tmp_path / "link.mp4").symlink_to("in.mp4")
        done = fails(*words, source="in.mp4")
        assert_one_line(done, "link.mp4 is the source itself")

    def test_folder_is_the_sources(self, fails, tmp_path, media):
        """Results are named after the pictures: they would be written over them."""
        shutil.copytree(media / "photos", tmp_path / "photos")
        for option, target, source in (
            ("-o", "photos/", "photos"),
            ("--mask", "photos", "photos/*.png"),
            ("-o", "photos/photo%d.png", "photos"),
        ):
            done = fails(option, target, "--force", source=source)
            assert_one_line(done, target, "is the source itself")

    @pytest.mark.parametrize(
        "words",
        [
            ["-o", "o.mp4", "-o", "o.mp4"],
            ["-o", "o.mp4", "-o", "./o.mp4"],
            ["-o", "o.mkv", "--mask", "o.mkv"],
            ["-o", "o.json", "--report", "o.json"],
            ["-o", "o/", "--mask", "o"],
            ["-o", "o/%06d.png", "--mask", "o/"],
        ],
    )
    def test_same_twice(self, fails, tmp_path, words):
        (tmp_path / "o").mkdir()
        assert_one_line(fails(*words), "twice")

    @pytest.mark.parametrize(
        ("option", "name"),
        [("-o", "o.xyz"), ("-o", "o.gif"), ("--mask", "m.mp4"), ("--mask", "m.jpg")],
    )
    def test_unknown_suffix(self, fails, option, name):
        assert_one_line(fails(option, name), name, "allowed")

    def test_one_image_for_a_video(self, fails):
        assert_one_line(fails("-o", "o.png"), "o.png", "10 frames", "%06d")

    def test_wrong_pattern(self, fails):
        assert_one_line(fails("-o", "%s.png"), "%s.png", "%06d")

    def test_unknown_encoder(self, fails):
        assert_one_line(fails("-o", "o.mp4", "--encoder", "libx999"), "libx999", "libx264")

    def test_encoder_for_another_container(self, fails):
        assert_one_line(fails("-o", "o.webm", "--encoder", "libx264"), ".webm", "libvpx-vp9")

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
    @pytest.mark.parametrize("name", ["closed/o.mp4", "closed/o/", "closed/s.jsonl"])
    def test_folder_is_read_only(self, fails, tmp_path, name):
        (tmp_path / "closed").mkdir(mode=0o500)
        option = "--stats" if name.endswith("jsonl") else "-o"
        assert_one_line(fails(option, name), "not writable")


class TestModel:
    def test_unknown(self, fails):
        assert_one_line(fails("-o", "o.mp4", model="voc2"), "voc2", "voc")

    def test_missing(self, fails):
        assert_one_line(fails("-o", "o.mp4", model="my.onnx"), "my.onnx")

    def test_without_card(self, fails, tmp_path, colours):
        shutil.copy(colours, tmp_path / "my.onnx")
        done = fails("-o", "o.mp4", model="my.onnx")
        assert_one_line(done, "my.yaml", "name", "input", "classes", "mean", "std")

    def test_card_is_missing(self, fails, colours):
        assert_one_line(fails("--card", "none.yaml", model=colours), "none.yaml")

    def test_card_for_a_shipped_model(self, fails, colours):
        done = fails("--card", colours.with_suffix(".yaml"), model="voc")
        assert_one_line(done, "voc", "--card")

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"classes": ["background", "red", "green"]}, ["4 channels", "3 classes"]),
            ({"input__height": 0}, ["input.height"]),
            ({"input__std": [1.0, 1.0]}, ["std", "2 values"]),
            ({"input__color": "gray", "input__mean": [0.0], "input__std": [1.0]}, ["color"]),
            ({"input__colour": "rgb"}, ["input.colour", "no such key"]),
            ({"clases": ["a", "b"]}, ["clases", "no such key"]),
            ({"input__mean": None}, ["input.mean", "required"]),
            ({"name": None}, ["name", "required"]),
            ({"palette": "rainbow"}, ["palette", "rainbow"]),
            ({"output": {"name": "logits"}}, ["logits", "scores"]),
            ({"sha256": "0" * 64}, ["sha256"]),
        ],
    )
    def test_wrong_card(self, fails, tmp_path, changes, says):
        save_colours(tmp_path)
        (tmp_path / "colours.yaml").write_text(yaml.safe_dump(card(**changes)))
        assert_one_line(fails("-o", "o.mp4", model="colours.onnx"), *says)

    def test_size_that_the_network_does_not_have(self, fails, tmp_path):
        onnx.save(networks.red_levels(size=(24, 32), batch=1), str(tmp_path / "fixed.onnx"))
        keys = card(input__height=48, classes=[f"class{i}" for i in range(networks.LEVELS)])
        (tmp_path / "fixed.yaml").write_text(yaml.safe_dump(keys))
        assert_one_line(fails("-o", "o.mp4", model="fixed.onnx"), "48x32", "card")

    def test_card_is_not_yaml(self, fails, tmp_path):
        save_colours(tmp_path)
        (tmp_path / "colours.yaml").write_text("name: [unclosed\ninput: {")
        assert_one_line(fails(model="colours.onnx"), "colours.yaml", "not YAML")

    @pytest.mark.parametrize("data", [b"", b"This is no network.", bytes(1000)])
    def test_not_onnx(self, fails, tmp_path, data):
        save_colours(tmp_path)
        (tmp_path / "colours.onnx").write_bytes(data)
        assert_one_line(fails("-o", "o.mp4", model="colours.onnx"), "colours.onnx", "ONNX")

    def test_unknown_class(self, fails):
        assert_one_line(fails("--classes", "red,purple", "-o", "o.mp4"), "purple", "red", "blue")

    def test_no_class(self, fails):
        assert_usage(fails("--classes", ",", "-o", "o.mp4"), "--classes")


class TestEngine:
    def test_unknown_engine(self, fails):
        done = fails("--engine", "tensorflow", "-o", "o.mp4")
        assert_usage(done, "--engine", "'tensorflow'", "tensorrt", "openvino", "onnxruntime")

    def test_engine_that_is_not_installed(self, fails):
        done = fails("--engine", "tensorrt", "-o", "o.mp4")
        assert_one_line(done, "tensorrt is not installed", "pip install 'streamseg[tensorrt]'")

    def test_unknown_precision(self, fails):
        done = fails("--precision", "fp64", "-o", "o.mp4")
        assert_usage(done, "--precision", "'fp64'", "fp32", "bf16")

    def test_unknown_device(self, fails):
        assert_one_line(fails("--device", "TPU", "-o", "o.mp4"), "TPU", "CPU")

    def test_precision_that_the_processor_lacks(self, fails):
        from engines.openvino_engine import available_precisions

        lacking = {"bf16", "fp16"} - set(available_precisions("CPU"))
        if not lacking:
            pytest.skip("this processor computes in everything")
        for precision in sorted(lacking):
            done = fails("--precision", precision, "-o", "o.mp4")
            assert_one_line(done, precision, "fp32")

    def test_torch_runs_no_files(self, fails):
        pytest.importorskip("torch")
        done = fails("--engine", "torch", "-o", "o.mp4")
        assert_one_line(done, "torch cannot run", ".onnx", "voc, street", "--engine")

    def test_onnxruntime_has_neither_devices_nor_precisions(self, fails):
        pytest.importorskip("onnxruntime")
        done = fails("--engine", "onnxruntime", "--device", "GPU", "-o", "o.mp4")
        assert_one_line(done, "onnxruntime", "GPU")
        done = fails("--engine", "onnxruntime", "--precision", "bf16", "-o", "o.mp4")
        assert_one_line(done, "bf16")


class TestUsage:
    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["--overlay", "1.5"], ["--overlay", "1.5"]),
            (["--overlay", "-0.1"], ["--overlay", "-0.1"]),
            (["--overlay", "much"], ["--overlay"]),
            (["--overlay", "nan"], ["--overlay"]),
            (["--start", "-1"], ["--start", "-1"]),
            (["--start", "inf"], ["--start"]),
            (["--duration", "0"], ["--duration", "0"]),
            (["--duration", "-3"], ["--duration", "-3"]),
            (["--duration", "nan"], ["--duration"]),
            (["--max-frames", "0"], ["--max-frames", "0"]),
            (["--max-frames", "-5"], ["--max-frames", "-5"]),
            (["--fps", "0"], ["--fps", "0"]),
            (["--fps", "-25"], ["--fps", "-25"]),
            (["--quality", "52"], ["--quality", "52"]),
            (["--quality", "-1"], ["--quality", "-1"]),
            (["--rle"], ["--rle", "--stats"]),
            (["--show-me"], ["--show-me"]),
            (["second.mp4", "-o", "o.mp4"], ["2 sources", "{name}"]),
        ],
        ids=" ".join,
    )
    def test_wrong(self, fails, words, says):
        assert_usage(fails(*words), *says)

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("overlai: 0.5\n", ["run.yaml", "overlai", "did you mean overlay"]),
            ("colour: red\n", ["run.yaml", "colour", "allowed", "overlay"]),
            ("overlay: 7\n", ["run.yaml", "overlay", "7"]),
            ("overlay: [\n", ["run.yaml", "line 2"]),
            ("just words\n", ["run.yaml", "no keys"]),
            ("rle: true\n", ["rle", "stats"]),
            ("output: 5\n", ["run.yaml", "output", "list"]),
        ],
    )
    def test_config(self, fails, tmp_path, text, says):
        (tmp_path / "run.yaml").write_text(text)
        assert_usage(fails("--config", "run.yaml"), *says)

    def test_config_is_missing(self, fails):
        assert_usage(fails("--config", "none.yaml"), "none.yaml")

    def test_unknown_command(self, streamseg):
        assert_usage(streamseg("walk"), "walk")

    def test_nothing_at_all_is_a_question(self, streamseg):
        done = streamseg()
        assert done.code == USAGE
        assert "run" in done.out + done.err


def limited(env, tmp_path, blocks, *words):
    """The program where no file may grow past so many blocks of 512 bytes."""
    shell = ["sh", "-c", 'ulimit -f "$0" && exec "$@"', blocks, *PROGRAM, *words]
    return call(shell, env=env, cwd=tmp_path)


def playable_frames(path):
    """As a player has it: up to where the file breaks off."""
    frames = 0
    with av.open(str(path)) as file, suppress(av.error.InvalidDataError):
        for _ in file.decode(video=0):
            frames += 1
    return frames


def test_disk_fills(env, tmp_path, media, colours):
    done = limited(
        env, tmp_path, 300, "run", media / "noise.mkv", "--model", colours, "-o", "o.mp4",
        "--quality", "10", "--report", "r.json",
    )  # fmt: skip
    assert_one_line(done, "o.mp4 cannot be written", "may not grow")
    assert not (tmp_path / "o.mp4").exists()
    assert playable_frames(tmp_path / "o.partial.mp4") > 0, "what is there must play"
    assert "kept  o.partial.mp4" in done.out
    assert done.ledger()["failed"] > 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["error"] == done.rest[0].removeprefix("error: ")
    (output,) = report["outputs"]
    assert output["path"] == "o.partial.mp4"
    assert not output["complete"]
    kept = playable_frames(tmp_path / "o.partial.mp4")
    assert output["frames"] - 1 <= kept <= output["frames"], "the last may be cut in two"
    assert report["frames"]["delivered"] == output["frames"]


def test_disk_fills_under_statistics(env, tmp_path, media, colours):
    done = limited(
        env, tmp_path, 8, "run", media / "long.mp4", "--model", colours, "--stats", "s.jsonl"
    )
    assert_one_line(done, "s.jsonl cannot be written")
    assert not (tmp_path / "s.jsonl").exists()


def test_disk_fills_under_one_of_two(env, tmp_path, media, colours):
    done = limited(
        env, tmp_path, 300, "run", media / "noise.mkv", "--model", colours,
        "-o", "o.mp4", "--quality", "10", "--mask", "m.mkv",
    )  # fmt: skip
    assert done.code == FAILED, done
    assert len(done.rest) == 1
    assert not (tmp_path / "m.mkv").exists()
    assert not (tmp_path / "o.mp4").exists()
    done.ledger()


def test_report_cannot_be_written(env, tmp_path, clip, colours):
    """The outputs are whole by then and stay."""
    done = limited(env, tmp_path, 1, "run", clip, "--model", colours, "--report", "r.json")
    assert_one_line(done, "r.json cannot be written")
    assert not list(tmp_path.iterdir())
    assert done.ledger()["delivered"] == 10


def test_sink_dies_midway(env, tmp_path, media, colours):
    """Somebody removes the folder of one output while all are written."""
    words = ["run", media / "long.mp4", "--model", colours, "-o", "o.mp4", "-o", "folder/"]
    process = subprocess.Popen(
        [*PROGRAM, *map(str, words)],
        env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while not (tmp_path / "folder" / "000020.png").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    (tmp_path / "folder").rename(tmp_path / "gone")
    out, err = process.communicate(timeout=30)
    assert process.returncode == FAILED, err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, err
    assert "folder" in errors[0]
    assert "Traceback" not in err
    assert not (tmp_path / "o.mp4").exists()
    frames = count_frames(tmp_path / "o.partial.mp4")
    said = re.search(r"kept  o.partial.mp4 \((\d+) frames, libx264\)", out)
    assert said, out
    assert int(said[1]) - frames in (0, 1)  # the encoder may still have held one
    assert frames >= 15  # the folder may be a few pictures ahead


def test_undecodable_pictures_are_counted(streamseg, tmp_path, media, colours):
    shutil.copytree(media / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "photo2.png").write_bytes(b"no picture")
    done = streamseg("run", "photos", "--model", colours, "-o", "o/")
    assert done.code == 0, done
    assert done.ledger()["captured"] == 3
    assert "lost 1 undecodable" in done.out
    assert len(list((tmp_path / "o").iterdir())) == 3


def test_reader_of_the_output_goes_away(env, tmp_path):
    """`streamseg models | head -1` must not end in a traceback."""
    shell = ["sh", "-c", '"$@" | true', "sh", *PROGRAM, "models"]
    done = call(shell, env=env, cwd=tmp_path)
    assert "Traceback" not in done.err, done.err


def test_pictures_of_several_sizes(streamseg, tmp_path, colours):
    for i, size in enumerate([(96, 128), (64, 64), (30, 200)]):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((*size, 3), 90, np.uint8))
    done = streamseg("run", "*.png", "--model", colours, "-o", "o/", "-o", "o.mp4")
    assert done.code == 0, done
    assert count_frames(tmp_path / "o.mp4") == 3


def test_clip_with_odd_sides(streamseg, tmp_path, colours):
    write_clip(tmp_path / "odd.mkv", count=3, size=(51, 33), codec="ffv1", pix_fmt="bgr0")
    done = streamseg("run", "odd.mkv", "--model", colours, "-o", "o.mp4")
    assert done.code == 0, done
    assert len(done.rest) == 1
    assert "34x52" in done.rest[0]


def test_names_with_spaces_and_signs(streamseg, tmp_path, clip, colours):
    shutil.copy(clip, tmp_path / "a clip: 100% ö'.mp4")
    done = streamseg("run", "a clip: 100% ö'.mp4", "--model", colours, "-o", "mein Film ü.mp4")
    assert done.code == 0, done
    assert count_frames(Path(tmp_path / "mein Film ü.mp4")) == 10


@pytest.mark.parametrize("text", ["nonsense", "crf:depth=3", "guided:scale=9"])
def test_a_refinement_that_is_none(fails, tmp_path, text):
    assert_usage(fails("--refine", text), "--refine", f"'{text}'")
    path = tmp_path / "run.yaml"
    path.write_text(f"refine: '{text}'\n")
    assert_usage(fails("--config", path), "run.yaml", "refine", f"'{text}'")


def test_a_network_that_gives_class_ids_is_not_refined(fails, tmp_path):
    model = networks.red_levels()
    model.graph.node.append(
        onnx.helper.make_node("ArgMax", ["scores"], ["ids"], axis=1, keepdims=1)
    )
    ids = onnx.helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, None)
    model.graph.output[0].CopyFrom(ids)
    path = networks.save(tmp_path, model, networks.make_card(classes=networks.LEVELS))
    assert_one_line(fails("--refine", "guided", model=path), "'ids'", "--refine none")
