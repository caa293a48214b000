"""Damaged files: every frame that can be decoded comes, and `lost` says how many could not."""

import random
from itertools import pairwise

import pytest

from pipeline.errors import SourceError
from pipeline.sources import file as file_module
from pipeline.sources import open_source
from pipeline.sources.synthetic import read_number
from pipeline.threads import ThreadPlan
from tests.clips import Tone, needs_encoder, packets, write_clip

COUNT = 100
B_FRAMES = {"preset": "fast", "crf": "12", "bf": "3"}


def read(path):
    source = open_source(path)
    frames = list(source.frames())
    assert [f.index for f in frames] == list(range(len(frames)))
    stamps = [f.pts for f in frames]
    assert all(a < b for a, b in pairwise(stamps))
    return [read_number(f.image) for f in frames], source.lost.get("undecodable", 0)


def clip(folder, suffix, codec, **options):
    needs_encoder(codec)
    if suffix == "mp4":
        options["container_options"] = {"movflags": "faststart"}
    return write_clip(folder / f"whole.{suffix}", codec=codec, count=COUNT, gop=25, **options)


def cut(path, at):
    short = path.with_name(f"cut{path.suffix}")
    short.write_bytes(path.read_bytes()[:at])
    return short


@pytest.fixture(params=[1, 4])
def decoder_threads(request, monkeypatch):
    """Several threads decode ahead and report errors late; machines with many cores have them."""
    monkeypatch.setattr(file_module, "plan_threads", lambda: ThreadPlan(request.param, 1))
    return request.param


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
@pytest.mark.parametrize(
    ("suffix", "codec", "says_length"),
    [
        ("mp4", "libx264", True),
        ("mkv", "libx264", True),
        ("mkv", "ffv1", True),
        ("webm", "libvpx-vp9", True),
        ("ts", "libx264", False),
        ("ts", "mpeg2video", False),
    ],
)
@pytest.mark.usefixtures("decoder_threads")
def test_a_file_that_breaks_off_plays_up_to_there(tmp_path, suffix, codec, says_length, part):
    whole = clip(tmp_path, suffix, codec)
    at = int(whole.stat().st_size * part)
    complete = sum(p.position + p.size <= at for p in packets(whole))
    numbers, lost = read(cut(whole, at))
    # The packet that is cut may decode in part.
    assert complete <= len(numbers) <= complete + 1
    assert numbers[:complete] == list(range(complete))
    # MPEG streams do not say how long they are, so nothing is known to be missing.
    assert lost == pytest.approx(COUNT - len(numbers) if says_length else 0, abs=1)


@pytest.mark.usefixtures("decoder_threads")
@pytest.mark.parametrize("at", [45, 50, 51, 52])
def test_an_mp4_that_breaks_off_among_b_frames_gives_every_whole_packet(tmp_path, at):
    whole = clip(tmp_path, "mp4", "libx264", options=B_FRAMES)
    broken = packets(whole)[at]
    numbers, lost = read(cut(whole, broken.position + broken.size // 2))
    assert len(numbers) == at
    assert lost == COUNT - at


@pytest.mark.parametrize("suffix", ["avi", "flv"])
def test_what_breaks_off_in_other_containers_is_counted_nearly(tmp_path, suffix):
    whole = clip(tmp_path, suffix, "mpeg4" if suffix == "avi" else "flv")
    numbers, lost = read(cut(whole, int(whole.stat().st_size * 0.6)))
    assert 30 < len(numbers) < 70
    assert lost == pytest.approx(COUNT - len(numbers), abs=2)


@pytest.mark.usefixtures("decoder_threads")
@pytest.mark.parametrize("bad", [[30], [57], [99], [30, 95, 96], [40, 41, 42, 43], [94]])
@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("mov", "prores_ks")])
def test_damaged_packets_cost_only_their_own_frames(tmp_path, suffix, codec, bad):
    path = clip(tmp_path, suffix, codec, options={"preset": "ultrafast", "g": "1"})
    garble(path, bad)
    numbers, lost = read(path)
    assert numbers == [n for n in range(COUNT) if n not in bad]
    assert lost == len(bad)


@pytest.mark.usefixtures("decoder_threads")
@pytest.mark.parametrize("bad", [[30], [98], [99], [30, 95, 96]])
def test_damaged_packets_are_counted_where_the_container_lists_no_frames(tmp_path, bad):
    path = clip(tmp_path, "mkv", "ffv1")
    garble(path, bad, keep=12)  # the block's own header
    numbers, lost = read(path)
    assert lost == len(bad)
    assert len(numbers) == COUNT - len(bad)


def garble(path, numbers, keep=0):
    data = bytearray(path.read_bytes())
    for number in numbers:
        packet = packets(path)[number]
        start, end = packet.position + keep, packet.position + packet.size
        data[start:end] = random.Random(number).randbytes(end - start)
    path.write_bytes(data)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_noise_in_the_middle_never_ends_the_film(tmp_path, suffix):
    path = clip(tmp_path, suffix, "mpeg4" if suffix == "avi" else "libx264")
    data = bytearray(path.read_bytes())
    middle = packets(path)[40].position
    data[middle : middle + 400] = random.Random(1).randbytes(400)
    path.write_bytes(data)
    numbers, _ = read(path)
    assert numbers[:40] == list(range(40))
    assert numbers[-20:] == list(range(80, 100))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "flv", "avi", "ts"])
def test_audio_that_is_longer_than_the_video_is_no_loss(tmp_path, suffix):
    codec = {"webm": "libvpx-vp9", "avi": "mpeg4"}.get(suffix, "libx264")
    sound = {"webm": "libopus", "avi": "libmp3lame"}.get(suffix, "aac")
    path = write_clip(
        tmp_path / f"c.{suffix}", codec=codec, count=10, audio=[Tone(sound, seconds=3)]
    )
    numbers, lost = read(path)
    assert numbers == list(range(10))
    assert lost == 0


def test_a_long_last_frame_is_no_loss(tmp_path):
    for suffix in ("mp4", "mkv"):
        stamps, lengths = [0, 1, 2, 3], [1, 1, 1, 200]
        path = write_clip(
            tmp_path / f"c.{suffix}", codec="ffv1" if suffix == "mkv" else "mpeg4",
            count=4, pts=stamps, durations=lengths,
        )  # fmt: skip
        assert read(path) == ([0, 1, 2, 3], 0)


def test_a_window_of_a_damaged_file_counts_no_loss_outside_of_it(tmp_path):
    whole = clip(tmp_path, "mp4", "libx264")
    source = open_source(cut(whole, int(whole.stat().st_size * 0.6)), duration_s=0.4)
    assert len(list(source.frames())) == 10
    assert source.lost == {}


def test_a_file_whose_frames_are_all_damaged_says_so_in_one_line(tmp_path):
    path = clip(tmp_path, "mp4", "libx264")
    garble(path, range(COUNT))
    with pytest.raises(SourceError, match=r"whole\.mp4 has a video stream, but no frame") as caught:
        open_source(path)
    assert "\n" not in str(caught.value)
