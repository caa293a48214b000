"""Audio that passes beside the pictures: the same sound, at the same time, or a note."""

import itertools
from fractions import Fraction

import av
import numpy as np
import pytest

from pipeline.sinks import open_output
from pipeline.sources import open_source
from tests.clips import Tone, audio_samples, needs_encoder, packets, times, write_clip
from tests.pipeline.sinks.hand_made import colored, drive

RATE = 48_000


def through(given, path, **cut):
    """A source through a sink; the sink."""
    source = open_source(given, **cut)
    sink = open_output(path, source)
    drive(sink, colored(source))
    return sink


def assert_same_sound(given, written, number=0, number_written=None):
    """Sample for sample, and within a millisecond (Matroska's tick) beside the same picture."""
    began_given, before = audio_samples(given, number)
    began, after = audio_samples(written, number if number_written is None else number_written)
    shift = find(after, before[:, 20_000:24_000]) - 20_000
    skipped = max(0, -shift)
    length = min(before.shape[1] - skipped, after.shape[1] - skipped - shift)
    # A container may drop or keep an encoder's own delay at both ends.
    assert length >= before.shape[1] - 2400
    part = after[:, skipped + shift : skipped + shift + length]
    assert np.array_equal(before[:, skipped : skipped + length], part)
    heard_given = began_given - times(given)[0]
    heard = began + Fraction(shift, RATE) - times(written)[0]
    assert abs(heard - heard_given) <= Fraction(1, 1000)


def find(samples, part):
    for at in range(20_000 - 3000, 20_000 + 3001):
        same_start = samples[0, at] == part[0, 0]
        if same_start and np.array_equal(samples[:, at : at + part.shape[1]], part):
            return at
    pytest.fail("the sound is another one")


CARRIED = {
    "mp4": ["aac", "libmp3lame", "libopus", "flac", "ac3", "alac", "pcm_s16le"],
    "mov": ["aac", "libmp3lame", "ac3", "alac", "pcm_s16le"],
    "mkv": ["aac", "libmp3lame", "libopus", "flac", "ac3", "alac", "pcm_s16le"],
    "webm": ["libopus"],
    "ts": ["aac", "libmp3lame", "libopus", "ac3", "mp2"],
}


@pytest.mark.parametrize(
    ("suffix", "codec"), [(suffix, codec) for suffix in CARRIED for codec in CARRIED[suffix]]
)
def test_the_sound_is_the_same_and_in_sync(tmp_path, suffix, codec):
    needs_encoder(codec)
    given = write_clip(tmp_path / "in.mkv", count=30, audio=[Tone(codec, seconds=1.2)])
    sink = through(given, tmp_path / f"out.{suffix}")
    assert sink.notes == []
    assert_same_sound(given, tmp_path / f"out.{suffix}")


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts"])
@pytest.mark.parametrize(
    ("given_suffix", "codec"),
    [("mp4", "aac"), ("ts", "aac"), ("ts", "libmp3lame"), ("flv", "aac"), ("mp4", "ac3")],
)
def test_sound_goes_from_any_container_to_any_other(tmp_path, given_suffix, codec, suffix):
    """AAC of .ts has a header in each packet, that of .mp4 one for all; edit lists hide samples."""
    options = {"preset": "fast", "bf": "3"}
    given = write_clip(
        tmp_path / f"in.{given_suffix}", count=30, options=options, audio=[Tone(codec, seconds=1.2)]
    )
    path = tmp_path / f"out.{suffix}"
    assert through(given, path).notes == []
    assert_same_sound(given, path)
    # Only MPEG streams, which know no time before 0, may move both for sound that begins there.
    moved = times(path)[0] - times(given)[0]
    assert 0 <= moved <= Fraction(1, 30) if suffix == "ts" else moved == 0
    for was, now in zip(times(given), times(path), strict=True):
        assert abs(now - was - moved) <= Fraction(1, 1000)


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "aac"), ("mkv", "flac"), ("mkv", "libopus")])
def test_packets_go_through_byte_for_byte(tmp_path, suffix, codec):
    given = write_clip(tmp_path / f"in.{suffix}", count=30, audio=[Tone(codec, seconds=1.2)])
    through(given, tmp_path / f"out.{suffix}")

    def raw(path):
        with av.open(str(path)) as file:
            return [bytes(p) for p in file.demux(audio=0) if p.size]

    assert raw(given) == raw(tmp_path / f"out.{suffix}")


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_both_audio_streams_go_through_with_their_languages(tmp_path, suffix):
    tones = [
        Tone("aac", seconds=1.2, language="eng"),
        Tone("libmp3lame", hz=900, seconds=1.2, language="fin", layout="stereo"),
    ]
    given = write_clip(tmp_path / "in.mkv", count=30, audio=tones)
    path = tmp_path / f"out.{suffix}"
    through(given, path)
    for number in (0, 1):
        assert_same_sound(given, path, number)
    with av.open(str(path)) as file:
        assert [s.language for s in file.streams.audio] == ["eng", "fin"]
        assert [s.layout.name for s in file.streams.audio] == ["mono", "stereo"]


@pytest.mark.parametrize(
    ("suffix", "left_out", "kept"),
    [
        ("webm", "aac", "libopus"),
        ("mov", "libopus", "aac"),
        ("mov", "flac", "aac"),
        ("ts", "flac", "aac"),
    ],
)
def test_sound_that_a_container_cannot_carry_is_left_out_and_noted(
    tmp_path, suffix, left_out, kept
):
    tones = [Tone(left_out, seconds=1.2), Tone(kept, hz=900, seconds=1.2)]
    given = write_clip(tmp_path / "in.mkv", count=30, audio=tones)
    path = tmp_path / f"out.{suffix}"
    sink = through(given, path)
    (note,) = sink.notes
    assert note.startswith(left_out.removeprefix("lib") + " audio does not go into")
    with av.open(str(path)) as file:
        assert len(file.streams.audio) == 1
    assert_same_sound(given, path, 1, 0)
    assert len(times(path)) == 30


def test_mp3_is_called_mp3_in_the_note(tmp_path):
    given = write_clip(tmp_path / "in.mkv", count=5, audio=[Tone("libmp3lame")])
    assert through(given, tmp_path / "out.webm").notes == [
        "mp3 audio does not go into webm: left out"
    ]


def test_two_sinks_share_one_sources_audio(tmp_path):
    """Muxing changes a packet in place: neither may see what the other did."""
    given = write_clip(tmp_path / "in.mp4", count=30, audio=[Tone(seconds=1.2)])
    source = open_source(given)
    first = open_output(tmp_path / "a.mp4", source)
    second = open_output(tmp_path / "b.mkv", source)
    drive(second, first.run(colored(source)))
    assert_same_sound(given, tmp_path / "a.mp4")
    assert_same_sound(given, tmp_path / "b.mkv")


@pytest.mark.parametrize(
    ("suffix", "given_suffix"), [("mp4", "mkv"), ("mkv", "mp4"), ("mov", "ts")]
)
def test_a_source_that_has_ended_before_the_sink_begins_has_left_its_sound(
    tmp_path, suffix, given_suffix
):
    """A short clip is read and closed before the network has its first frame ready."""
    tones = [Tone(seconds=1.2, language="fin"), Tone(hz=900, seconds=1.2)]
    given = write_clip(tmp_path / f"in.{given_suffix}", count=30, audio=tones)
    source = open_source(given)
    sink = open_output(tmp_path / f"out.{suffix}", source)
    everything = list(colored(source))
    del source
    drive(sink, everything)
    for number in (0, 1):
        assert_same_sound(given, tmp_path / f"out.{suffix}", number)
    with av.open(str(tmp_path / f"out.{suffix}")) as file:
        assert file.streams.audio[0].language == "fin"


def test_a_late_start_of_both_keeps_them_together(tmp_path):
    given = write_clip(
        tmp_path / "in.mkv",
        count=30,
        pts=[10_000 + 40 * i for i in range(30)],
        time_base=Fraction(1, 1000),
        audio=[Tone("flac", seconds=1.2, start_s=10.2)],
    )
    for suffix in ("mp4", "mkv", "mov"):
        path = tmp_path / f"out.{suffix}"
        sink = through(given, path)
        assert times(path)[0] == 10
        if not sink.notes:
            assert_same_sound(given, path)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_sound_that_goes_on_after_the_last_picture_is_kept(tmp_path, suffix):
    given = write_clip(tmp_path / "in.mkv", count=10, audio=[Tone(seconds=2)])
    through(given, tmp_path / f"out.{suffix}")
    assert_same_sound(given, tmp_path / f"out.{suffix}")


def test_sound_without_end_of_the_pictures_stops_with_them(tmp_path):
    """A run that is stopped, or cut by a number of frames: the sound is as long as the video."""
    given = write_clip(tmp_path / "in.mp4", count=50, audio=[Tone(seconds=2)])
    through(given, tmp_path / "max.mp4", max_frames=25)
    source = open_source(given)
    drive(open_output(tmp_path / "stopped.mp4", source), itertools.islice(colored(source), 25))
    source.close()
    for name in ("max.mp4", "stopped.mp4"):
        began, samples = audio_samples(tmp_path / name)
        assert began == 0
        assert samples.shape[1] / RATE == pytest.approx(1.0, abs=0.05)


def test_a_window_keeps_sound_and_pictures_together(tmp_path):
    given = write_clip(tmp_path / "in.mov", count=50, gop=10, audio=[Tone("pcm_s16le", seconds=2)])
    path = tmp_path / "out.mov"
    through(given, path, start_s=0.6, duration_s=0.8)
    began, samples = audio_samples(path)
    whole = audio_samples(given)[1]
    # The first whole packet in the window, and everything up to its end.
    first = round(began * RATE) + round(0.6 * RATE)
    assert 0 <= began <= 0.03
    assert np.array_equal(samples, whole[:, first : first + samples.shape[1]])
    assert (float(began) + samples.shape[1] / RATE) == pytest.approx(0.8, abs=0.03)
    assert len(times(path)) == 20


def test_a_video_without_sound_has_none(tmp_path):
    given = write_clip(tmp_path / "in.mp4")
    through(given, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert [s.type for s in file.streams] == ["video"]
    assert len(packets(tmp_path / "out.mp4")) == 12
