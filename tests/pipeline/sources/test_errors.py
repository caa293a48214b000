"""What cannot be read: one line each, with the file's name and what was found."""

import os

import av
import numpy as np
import pytest

from pipeline.errors import SourceError
from pipeline.sources import open_source
from tests.clips import Tone, write_clip, write_tone


def refusal(path):
    with pytest.raises(SourceError) as caught:
        open_source(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_a_missing_file(tmp_path):
    assert "no file or folder at" in refusal(tmp_path / "nothing.mp4")


def test_an_empty_file(tmp_path):
    (tmp_path / "empty.mp4").touch()
    assert "is empty (0 bytes)" in refusal(tmp_path / "empty.mp4")


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "txt", "avi", "srt"])
def test_text_under_any_name(tmp_path, suffix):
    path = tmp_path / f"letter.{suffix}"
    path.write_text("Dear reader,\n\nthis is not a video.\n" * 20)
    assert "not a video" in refusal(path)


def test_subtitles(tmp_path):
    path = tmp_path / "film.srt"
    path.write_text("1\n00:00:01,000 --> 00:00:02,000\nHello\n\n" * 5)
    assert "has no video stream (it has: subtitle)" in refusal(path)


def test_noise(tmp_path):
    path = tmp_path / "noise.mp4"
    path.write_bytes(np.random.default_rng(3).bytes(20_000))
    assert "not a video that FFmpeg can read" in refusal(path)


def test_an_mp4_without_its_table(tmp_path):
    path = write_clip(tmp_path / "c.mp4")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])
    assert "header is damaged" in refusal(path)


@pytest.mark.parametrize(("suffix", "codec"), [("wav", "pcm_s16le"), ("mp3", "libmp3lame")])
def test_audio_alone(tmp_path, suffix, codec):
    path = write_tone(tmp_path / f"song.{suffix}", Tone(codec, seconds=0.2))
    assert "has no video stream (it has: audio)" in refusal(path)


def test_audio_with_a_cover_picture(tmp_path):
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as output:
        sound = output.add_stream("libmp3lame", rate=48000)
        cover = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        output.start_encoding()
        picture = np.full((64, 64, 3), 99, np.uint8)
        output.mux(cover.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        output.mux(cover.encode(None))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 9600), np.int16), "s16", "mono")
        frame.sample_rate, frame.pts = 48000, 0
        output.mux(sound.encode(frame))
        output.mux(sound.encode(None))
    with av.open(str(path)) as file:
        assert [s.type for s in file.streams] == ["audio", "video"]
    assert "has no video stream" in refusal(path)


def test_a_video_without_a_single_frame(tmp_path):
    path = tmp_path / "none.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.width, stream.height = 64, 64
        output.start_encoding()
    refusal(path)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything"
)
def test_a_file_that_may_not_be_read(tmp_path):
    path = write_clip(tmp_path / "secret.mp4")
    path.chmod(0)
    assert "permission denied" in refusal(path)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything"
)
@pytest.mark.parametrize("name", ["", "clip.mp4", "picture.png", "*.png"])
def test_a_folder_that_may_not_be_read(tmp_path, name):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0)
    try:
        refusal(locked / name if name else locked)
    finally:
        locked.chmod(0o700)


def test_a_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    assert "holds no images (.avif," in refusal(tmp_path)


def test_a_pattern_that_matches_nothing(tmp_path):
    assert "no images match" in refusal(tmp_path / "*.png")


def test_a_scheme_that_is_not_read_names_those_that_are():
    with pytest.raises(SourceError, match="ftp streams are not read; allowed: rtsp, "):
        open_source("ftp://example.org/film.mp4")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    refusal(tmp_path / "pipe.mp4")


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_to_itself(tmp_path):
    path = tmp_path / "loop.mp4"
    path.symlink_to(path)
    refusal(path)
