"""`streamseg run`: every option does what its help says, seen from outside."""

import json
import shutil
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import yaml

from pipeline.sources.synthetic import read_number
from tests.clips import HEIGHT, WIDTH, Tone, audio_samples, quadrants, write_clip
from tests.tools.program import CLASSES, PROGRAM, call, count_frames, read_video, save_colours

COUNT = 10
RED, GREEN, BLUE = (128, 0, 0), (0, 128, 0), (128, 128, 0)
"""The VOC palette's colours of the classes 1 to 3."""
REPORT_KEYS = {
    "schema", "source", "model", "engine", "frames", "fps", "wall_s", "first_frame_s",
    "latency_ms", "stages", "bottleneck", "outputs",
}  # fmt: skip


def read_png(path):
    """uint8 (H, W, 3) RGB."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert image is not None, path
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_ids(path):
    """uint8 (H, W) class ids of a palette PNG."""
    with av.open(str(path)) as file:
        (frame,) = file.decode(video=0)
    assert frame.format.name == "pal8"
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : frame.width]


def quarters(image):
    """The middles of the four quadrants: upper left, upper right, lower left, lower right."""
    h, w = image.shape[:2]
    ys, xs = (h // 4, 3 * h // 4), (w // 4, 3 * w // 4)
    return [image[y, x].astype(int) for y in ys for x in xs]


def expected_ids():
    """The answer of the network `colours` to the clip's quadrants."""
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[: HEIGHT // 2, : WIDTH // 2] = 1
    ids[: HEIGHT // 2, WIDTH // 2 :] = 2
    ids[HEIGHT // 2 :, : WIDTH // 2] = 3
    return ids


def assert_quarters(image, colours, by=0):
    for pixel, colour in zip(quarters(image), colours, strict=True):
        assert np.abs(pixel - np.asarray(colour)).max() <= by, (pixel, colour)


def assert_overlaid(image, before, by):
    """Half of the picture and half of the class's colour; the background is left alone."""
    red, green, blue, white = quarters(before)
    painted = [(was + np.array(c)) / 2 for was, c in ((red, RED), (green, GREEN), (blue, BLUE))]
    assert_quarters(image, [*painted, white], by=by)


def rows_of(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.fixture(scope="module")
def everything(env, clip, colours, tmp_path_factory):
    """One run with every kind of output at once."""
    folder = tmp_path_factory.mktemp("everything")
    (folder / "numbered").mkdir()
    words = ["run", clip, "--model", colours]
    words += ["-o", "out.mp4", "-o", "out.mkv", "-o", "out.webm", "-o", "out.mov", "-o", "out.ts"]
    words += ["-o", "folder/", "-o", "numbered/%04d.jpg", "--mask", "mask.mkv"]
    words += ["--stats", "stats.jsonl", "--rle", "--report", "report.json"]
    return folder, call([*PROGRAM, *words], env=env, cwd=folder)


@pytest.fixture(scope="module")
def report(everything):
    return json.loads((everything[0] / "report.json").read_text())


def test_says_what_it_does_and_how_it_went(everything, clip):
    _, done = everything
    assert done.code == 0, done.err
    assert not done.rest
    assert done.ledger() == {"captured": COUNT, "delivered": COUNT, "dropped": 0, "failed": 0}
    assert [note.split()[0] for note in done.notes] == ["source", "model", "engine"] + 9 * [
        "output"
    ]
    assert str(clip) in done.err
    assert "128x96 h264, 25.00 fps, 10 frames" in done.err
    assert "(there is no NVIDIA GPU here" in done.err, "auto must say why"
    assert f"wrote  out.mp4 ({COUNT} frames, libx264)" in done.out
    assert "speed  " in done.out
    assert "limit  " in done.out


def test_leaves_nothing_but_the_outputs(everything):
    folder, _ = everything
    assert sorted(p.name for p in folder.iterdir()) == [
        "folder", "mask.mkv", "numbered", "out.mkv", "out.mov", "out.mp4", "out.ts", "out.webm",
        "report.json", "stats.jsonl",
    ]  # fmt: skip
    assert sorted(p.name for p in (folder / "folder").iterdir()) == [
        f"{i:06d}.png" for i in range(COUNT)
    ]
    assert sorted(p.name for p in (folder / "numbered").iterdir()) == [
        f"{i:04d}.jpg" for i in range(COUNT)
    ]


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("out.mp4", "h264"),
        ("out.mkv", "h264"),
        ("out.mov", "h264"),
        ("out.ts", "h264"),
        ("out.webm", "vp9"),
    ],
)
def test_output_video(everything, clip, name, codec):
    video = read_video(everything[0] / name)
    assert video.codec == codec
    assert video.size == (HEIGHT, WIDTH)
    begin = video.times[0]  # a .ts does not begin at 0
    assert begin == pytest.approx(0, abs=0.001) or name == "out.ts"
    assert [t - begin for t in video.times] == pytest.approx(read_video(clip).times, abs=0.002)
    assert_overlaid(video.pictures[COUNT // 2], quadrants(), by=16)


def test_output_folder_and_pattern(everything, clip):
    folder, _ = everything
    before = read_video(clip).pictures[0]
    for path in (folder / "folder" / "000003.png", folder / "numbered" / "0003.jpg"):
        assert_overlaid(read_png(path), before, by=12)


def test_mask_video_is_exact(everything):
    video = read_video(everything[0] / "mask.mkv", "gray")
    assert video.codec == "ffv1"
    assert len(video.pictures) == COUNT
    for ids in video.pictures:
        np.testing.assert_array_equal(ids, expected_ids())


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
def test_stats_and_rle(everything, clip):
    mask = pytest.importorskip("pycocotools.mask")
    rows = rows_of(everything[0] / "stats.jsonl")
    assert [row["index"] for row in rows] == list(range(COUNT))
    assert [row["time_s"] for row in rows] == pytest.approx(read_video(clip).times, abs=1e-6)
    for row in rows:
        assert row["classes"] == dict.fromkeys(CLASSES, 0.25)
        assert set(row["rle"]) == set(CLASSES)
        for i, name in enumerate(CLASSES):
            np.testing.assert_array_equal(mask.decode(row["rle"][name]), expected_ids() == i)


def test_report_has_the_keys_of_the_contract(report):
    assert report.keys() >= REPORT_KEYS
    assert report["schema"] == 1
    assert report["engine"].keys() >= {"name", "precision", "version", "device"}
    assert report["frames"].keys() >= {"captured", "delivered", "dropped", "failed"}
    assert report["latency_ms"].keys() == {"p50", "p90", "p95", "p99", "p99.9", "max"}
    assert report["bottleneck"].keys() == {"stage", "fps_limit", "advice"}
    for stage in report["stages"]:
        assert stage.keys() >= {"name", "frames", "busy_ms", "wait_in_ms", "wait_out_ms"}
    for output in report["outputs"]:
        assert output.keys() >= {"path", "frames", "codec"}


def test_report_agrees_with_the_outputs(everything, report, clip):
    folder, _ = everything
    assert report["source"] == str(clip)
    assert report["model"] == "colours"
    assert report["frames"]["captured"] == report["frames"]["delivered"] == COUNT
    assert report["frames"]["dropped"] == {}
    assert report["frames"]["failed"] == 0
    assert not report["interrupted"]
    assert report["error"] is None
    outputs = {row["path"]: row for row in report["outputs"]}
    assert outputs.keys() == {
        "out.mp4", "out.mkv", "out.webm", "out.mov", "out.ts", "folder", "numbered/%04d.jpg",
        "mask.mkv", "stats.jsonl",
    }  # fmt: skip
    for row in outputs.values():
        assert row["frames"] == COUNT
        assert row["complete"]
    for name in ("out.mp4", "out.mkv", "out.webm", "mask.mkv"):
        assert count_frames(folder / name) == COUNT
    assert outputs["out.mp4"]["codec"] == "libx264"
    assert outputs["mask.mkv"]["codec"] == "ffv1"


def test_report_times_are_plausible(report):
    assert report["fps"] == pytest.approx(COUNT / report["wall_s"], rel=0.01)
    assert 0 < report["first_frame_s"] < 30
    latency = report["latency_ms"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p95"] <= latency["p99"]
    # Percentiles are read from buckets 1% wide, the maximum is exact.
    assert latency["p99"] <= latency["max"] * 1.01
    assert latency["max"] <= 1000 * report["wall_s"]
    names = [stage["name"] for stage in report["stages"]]
    assert names[:4] == ["capture", "preprocess", "infer", "colorize"]
    assert report["bottleneck"]["stage"] in names
    assert report["bottleneck"]["fps_limit"] > 0
    for stage in report["stages"]:
        assert stage["frames"] == COUNT
        spent = stage["busy_ms"] + stage["wait_in_ms"] + stage["wait_out_ms"]
        assert 0 <= spent * COUNT <= 1.1 * 1000 * report["wall_s"]


def test_audio_passes(streamseg, media, colours, tmp_path):
    done = streamseg("run", media / "sound.mp4", "--model", colours, "-o", "o.mp4", "-o", "o.mkv")
    assert done.code == 0, done
    before = audio_samples(media / "sound.mp4")
    after = audio_samples(tmp_path / "o.mp4")
    assert after[0] == before[0]
    np.testing.assert_array_equal(after[1], before[1])
    # Matroska has no times below 0: AAC's priming, 1024 samples, moves sound and picture alike.
    priming = 1024
    begin, samples = audio_samples(tmp_path / "o.mkv")
    np.testing.assert_array_equal(samples[:, priming:], before[1])
    shift = read_video(tmp_path / "o.mkv").times[0] - float(begin)
    assert shift == pytest.approx(priming / 48000, abs=0.002)


def test_audio_of_a_clip_shorter_than_the_queues_passes(streamseg, tmp_path, colours):
    """The source has come to its end before the first picture reaches the encoder."""
    write_clip(tmp_path / "short.mp4", count=3, audio=[Tone(seconds=0.12)])
    done = streamseg("run", "short.mp4", "-o", "o.mp4", "--model", colours)
    assert done.code == 0, done
    assert read_video(tmp_path / "o.mp4").audio_packets == (
        read_video(tmp_path / "short.mp4").audio_packets
    )


def test_audio_that_does_not_fit_is_named(streamseg, media, colours, tmp_path):
    done = streamseg("run", media / "sound.mp4", "-o", "o.webm", "--model", colours)
    assert done.code == 0, done
    assert done.rest == ["aac audio does not go into webm: left out"]
    assert read_video(tmp_path / "o.webm").audio_packets == 0


def test_one_picture(streamseg, picture, colours, tmp_path):
    done = streamseg(
        "run", picture, "--model", colours, "-o", "o.png", "-o", "o.jpg", "--mask", "m.png"
    )
    assert done.code == 0, done
    assert done.ledger()["delivered"] == 1
    assert "wrote  o.png (1 frame, png)" in done.out
    ids = read_ids(tmp_path / "m.png")
    np.testing.assert_array_equal(ids, expected_ids())
    assert_quarters(read_png(tmp_path / "m.png"), [RED, GREEN, BLUE, (0, 0, 0)])
    assert_overlaid(read_png(tmp_path / "o.png"), quadrants(), by=1)
    assert_overlaid(read_png(tmp_path / "o.jpg"), quadrants(), by=12)


def test_folder_of_pictures(streamseg, media, colours, tmp_path):
    """Results are named after the pictures; --fps times them in a video."""
    done = streamseg(
        "run", media / "photos", "--model", colours, "-o", "painted/", "--mask", "masks/",
        "-o", "o.mp4", "--fps", "10",
    )  # fmt: skip
    assert done.code == 0, done
    names = [f"photo{i}.png" for i in range(4)]
    assert sorted(p.name for p in (tmp_path / "painted").iterdir()) == names
    assert sorted(p.name for p in (tmp_path / "masks").iterdir()) == names
    assert read_video(tmp_path / "o.mp4").times == pytest.approx([0, 0.1, 0.2, 0.3], abs=0.002)


def test_glob_of_pictures_and_mask_pattern(streamseg, media, colours, tmp_path):
    done = streamseg(
        "run", f"{media}/photos/photo[12].png", "--model", colours, "--mask", "%02d.png"
    )
    assert done.code == 0, done
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00.png", "01.png"]


def painted(streamseg, picture, colours, tmp_path, *words):
    done = streamseg("run", picture, "--model", colours, "-o", "o.png", *words)
    assert done.code == 0, done
    return read_png(tmp_path / "o.png")


def test_overlay_0_leaves_the_picture(streamseg, picture, colours, tmp_path):
    image = painted(streamseg, picture, colours, tmp_path, "--overlay", "0")
    np.testing.assert_array_equal(image, quadrants())


def test_overlay_1_hides_it(streamseg, picture, colours, tmp_path):
    image = painted(streamseg, picture, colours, tmp_path, "--overlay", "1")
    assert_quarters(image, [RED, GREEN, BLUE, (230, 230, 230)])


def test_classes_paints_only_these(streamseg, picture, colours, tmp_path):
    image = painted(
        streamseg, picture, colours, tmp_path, "--overlay", "1", "--classes", "green, background"
    )
    before = quarters(quadrants())
    assert_quarters(image, [before[0], GREEN, before[2], (0, 0, 0)])


def test_legend_names_the_colours(streamseg, picture, colours, tmp_path):
    image = painted(streamseg, picture, colours, tmp_path, "--overlay", "0", "--legend")
    changed = (image != quadrants()).any(axis=2)
    assert changed[:40, :40].any()
    assert not changed[HEIGHT // 2 :].any()
    for colour in (RED, GREEN, BLUE):
        assert (image[:40, :40] == colour).all(axis=2).any(), f"no swatch of {colour}"


def test_contours_draws_the_borders(streamseg, picture, colours, tmp_path):
    image = painted(streamseg, picture, colours, tmp_path, "--overlay", "0", "--contours")
    changed = (image != quadrants()).any(axis=2)
    assert changed[HEIGHT // 4, WIDTH // 2 - 3 : WIDTH // 2 + 3].any()
    assert_quarters(image, quarters(quadrants()))


def test_start_and_duration(streamseg, media, colours, tmp_path):
    done = streamseg(
        "run", media / "numbered.mp4", "--model", colours, "-o", "o.mkv", "--stats", "s.jsonl",
        "--start", "0.4", "--duration", "0.2", "--quality", "10",
    )  # fmt: skip
    assert done.code == 0, done
    video = read_video(tmp_path / "o.mkv")
    assert [read_number(p) for p in video.pictures] == [10, 11, 12, 13, 14]
    assert video.times == pytest.approx([0, 0.04, 0.08, 0.12, 0.16], abs=0.002)
    assert [row["index"] for row in rows_of(tmp_path / "s.jsonl")] == [0, 1, 2, 3, 4]


def test_max_frames(streamseg, media, colours, tmp_path):
    done = streamseg(
        "run", media / "numbered.mp4", "--model", colours, "-o", "o.mp4", "--max-frames", "3"
    )
    assert done.code == 0, done
    assert done.ledger()["captured"] == 3
    assert [read_number(p) for p in read_video(tmp_path / "o.mp4").pictures] == [0, 1, 2]


def test_quality_and_encoder(streamseg, media, colours, tmp_path):
    sizes = []
    for quality in (0, 51):
        done = streamseg(
            "run", media / "noise.mkv", "--model", colours, "--encoder", "libx264",
            "--quality", quality, "-o", f"{quality}.mp4", "--max-frames", "5",
        )  # fmt: skip
        assert done.code == 0, done
        assert "(5 frames, libx264)" in done.out
        sizes.append((tmp_path / f"{quality}.mp4").stat().st_size)
    assert sizes[0] > 5 * sizes[1], sizes


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_engine_precision_and_device(streamseg, picture, colours, tmp_path, engine):
    pytest.importorskip(engine)
    done = streamseg(
        "run", picture, "--model", colours, "--engine", engine, "--precision", "fp32",
        "--device", "CPU", "--mask", "m.png", "--report", "r.json",
    )  # fmt: skip
    assert done.code == 0, done
    ran = json.loads((tmp_path / "r.json").read_text())["engine"]
    assert (ran["name"], ran["precision"]) == (engine, "fp32")
    assert ran["device"].startswith("CPU")
    assert f"engine  {engine} " in done.err
    assert "asked for" in done.err
    np.testing.assert_array_equal(read_ids(tmp_path / "m.png"), expected_ids())


def test_card_elsewhere(streamseg, picture, colours, tmp_path):
    shutil.copy(colours, tmp_path / "bare.onnx")
    keys = yaml.safe_load(colours.with_suffix(".yaml").read_text())
    keys["classes"] = ["background", "rot", "gelb", "blau"]
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(keys))
    done = streamseg(
        "run", picture, "--model", "bare.onnx", "--card", "other.yaml", "--stats", "s.jsonl"
    )
    assert done.code == 0, done
    assert set(rows_of(tmp_path / "s.jsonl")[0]["classes"]) == set(keys["classes"])


def test_the_default_model_is_voc(streamseg, clip, tmp_path):
    done = streamseg("run", clip, "--max-frames", "2", "--report", "r.json")
    assert done.code == 0, done
    assert "output  none: this only measures" in done.err
    assert json.loads((tmp_path / "r.json").read_text())["model"] == "voc"


def test_config_and_the_command_line_overrules_it(streamseg, media, tmp_path, colours):
    save_colours(tmp_path)
    asked = {
        "source": str(media / "numbered.mp4"),
        "model": "colours.onnx",
        "output": ["o.mp4"],
        "max-frames": 7,
        "overlay": 0.25,
        "legend": True,
        "classes": ["red"],
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(asked))
    done = streamseg("run", "--config", "run.yaml")
    assert done.code == 0, done
    assert count_frames(tmp_path / "o.mp4") == 7
    done = streamseg("run", "--config", "run.yaml", "--max-frames", "2", "-o", "p.mkv")
    assert done.code == 0, done
    assert count_frames(tmp_path / "p.mkv") == 2
    assert count_frames(tmp_path / "o.mp4") == 7, "the command line's -o replaces the file's"


def test_shipped_configs_run(streamseg, clip, colours, tmp_path):
    folder = Path(__file__).parents[2] / "configs" / "runs"
    for config in sorted(folder.glob("*.yaml")):
        done = streamseg("run", clip, "--config", config, "--model", colours, "--force")
        assert done.code == 0, done
        asked = yaml.safe_load(config.read_text())
        for name in [
            *asked.get("output", []),
            *(asked.get(k) for k in ("mask", "stats", "report")),
        ]:
            assert name is None or (tmp_path / name.replace("{name}", clip.stem)).is_file()


def test_force_overwrites(streamseg, picture, colours, tmp_path):
    for name in ("o.png", "r.json", "s.jsonl"):
        (tmp_path / name).write_text("old")
    words = ["-o", "o.png", "--report", "r.json", "--stats", "s.jsonl"]
    done = streamseg("run", picture, "--model", colours, *words, "--force")
    assert done.code == 0, done
    assert read_png(tmp_path / "o.png").shape == (HEIGHT, WIDTH, 3)
    assert rows_of(tmp_path / "s.jsonl")
    assert json.loads((tmp_path / "r.json").read_text())["frames"]["delivered"] == 1


@pytest.mark.parametrize("flag", ["--quiet", "-q"])
def test_quiet_prints_nothing(streamseg, clip, colours, tmp_path, flag):
    done = streamseg("run", clip, "--model", colours, "-o", "o.mp4", flag)
    assert (done.code, done.out, done.err) == (0, "", "")
    assert count_frames(tmp_path / "o.mp4") == COUNT


def test_quiet_still_prints_the_error(streamseg):
    done = streamseg("run", "nowhere.mp4", "--quiet")
    assert done.code == 1
    assert done.err == "error: no file or folder at nowhere.mp4\n"


def test_debug_shows_the_traceback(streamseg):
    done = streamseg("run", "nowhere.mp4", "--debug")
    assert done.code == 1
    assert "Traceback" in done.err
    assert done.err.rstrip().endswith("SourceError: no file or folder at nowhere.mp4")


def test_the_installed_script_is_the_same_program(env, tmp_path):
    import sysconfig

    script = Path(sysconfig.get_path("scripts")) / "streamseg"
    if not script.exists():
        pytest.skip("streamseg is not installed in this environment")
    done = call([script, "run", "nowhere.mp4"], env=env, cwd=tmp_path)
    assert (done.code, done.err) == (1, "error: no file or folder at nowhere.mp4\n")


@pytest.mark.parametrize("text", ["guided", "guided:scale=2", "crf"])
def test_refine_is_in_the_lines_the_report_and_the_labels(streamseg, clip, colours, tmp_path, text):
    (tmp_path / "run.yaml").write_text(f"refine: '{text}'\n")
    words = ["run", clip, "--model", colours, "--report", "r.json", "--mask", "m.mkv", "--force"]
    for ask in (["--refine", text], ["--config", "run.yaml"]):
        done = streamseg(*words, *ask)
        assert done.code == 0, done.err
        told = json.loads((tmp_path / "r.json").read_text())["engine"]["refine"]
        assert told.startswith(f"{text}," if ":" in text else f"{text}:scale=1,")
        assert f"refine  {told}" in done.notes
        for mask in read_video(tmp_path / "m.mkv", "gray").pictures:
            assert mask.shape == (HEIGHT, WIDTH)
            assert [int(q) for q in quarters(mask)] == [1, 2, 3, 0]
    plain = streamseg(*words, "--config", "run.yaml", "--refine", "none")
    assert plain.code == 0, plain.err
    assert json.loads((tmp_path / "r.json").read_text())["engine"]["refine"] == "none"
    assert "refine  " not in plain.err


def test_every_third_frame_is_seen_and_all_are_written(streamseg, media, colours, tmp_path):
    words = ["--model", colours, "-o", "o.mp4", "--every", 3, "--report", "r.json"]
    done = streamseg("run", media / "noise.mkv", *words)
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert report["frames"]["delivered"] == report["frames"]["captured"] > 0
    assert report["every"] == 3
    (tmp_path / "two").mkdir()
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / "two" / name), np.zeros((20, 20, 3), np.uint8))
    done = streamseg("run", "two", "--model", colours, "--every", 3)
    assert done.code == 1
    assert done.err == "error: --every is for video: the pictures of two do not move\n"
