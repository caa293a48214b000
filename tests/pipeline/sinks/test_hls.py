"""HLS: what a web server would hand out, read back as a player does."""

from __future__ import annotations

from fractions import Fraction

import av
import pytest

from pipeline.errors import SinkError
from pipeline.roles import Stage
from pipeline.runner import Pipeline
from pipeline.sinks import open_output
from pipeline.sources import FileSource
from pipeline.sources.synthetic import SyntheticSource, read_number
from tests.clips import Tone, needs_encoder, write_clip

SIZE = (96, 128)


def paint(frames):
    for frame in frames:
        frame.picture = frame.image
        yield frame


def write(source, path, **options):
    sink = open_output(path, source, encoder="libx264", quality=12, **options)
    with Pipeline(source, [Stage("paint", paint)], [sink]) as pipeline:
        for _ in pipeline:
            pass
    return sink, pipeline


def read(path):
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
    return [read_number(f.to_ndarray(format="rgb24")) for f in frames], [f.time for f in frames]


def test_a_file_becomes_a_whole_video_on_demand(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", count=120, audio=[Tone(seconds=4.8)])
    path = tmp_path / "100%" / "out.m3u8"  # a folder that is made
    sink, pipeline = write(FileSource(clip), path)
    numbers, times = read(path)
    assert numbers == list(range(120))
    assert [t - times[0] for t in times] == pytest.approx([i / 25 for i in range(120)], abs=1e-4)
    text = path.read_text()
    assert text.count("#EXTINF") == len(list(path.parent.glob("out_*.ts"))) == 3
    assert text.rstrip().endswith("#EXT-X-ENDLIST")
    assert sink.output.complete
    assert pipeline.ledger.delivered == 120
    with av.open(str(path)) as file:
        assert sum(1 for p in file.demux(audio=0) if p.size) > 200


def test_of_a_live_source_the_last_segments_remain(tmp_path):
    path = tmp_path / "live.m3u8"
    source = SyntheticSource(*SIZE, count=250, fps=Fraction(25, 2), paced=True)
    source.info = SyntheticSource(*SIZE, fps=Fraction(25, 2)).info
    sink = open_output(path, source, encoder="libx264")
    assert sink.policy == "drop_oldest"

    def frames():  # twenty seconds in none
        source.live = False
        yield from source.frames()

    def painted():
        for frame in frames():
            frame.picture = frame.image
            yield frame

    assert len(list(sink.run(painted()))) == 250
    text = path.read_text()
    assert text.count("#EXTINF") == 6
    segments = sorted(p.name for p in tmp_path.glob("live_*.ts"))
    assert segments[-1] == "live_00009.ts"
    assert len(segments) <= 8  # one or two that players may still be reading
    numbers, _ = read(path)
    assert numbers == list(range(250 - len(numbers), 250))


def test_what_is_there_is_not_overwritten_unasked(tmp_path):
    path = tmp_path / "out.m3u8"
    path.write_text("mine")
    with pytest.raises(SinkError, match="exists; --force"):
        open_output(path, SyntheticSource(*SIZE))
    with pytest.raises(SinkError, match="there is no folder"):
        open_output(tmp_path / "a" / "b" / "out.m3u8", SyntheticSource(*SIZE))
    with pytest.raises(SinkError, match="may hold no %"):
        open_output(tmp_path / "%d.m3u8", SyntheticSource(*SIZE))
    assert path.read_text() == "mine"
    needs_encoder("libx264")
    write(SyntheticSource(*SIZE, count=3), path, force=True)
    assert read(path)[0] == [0, 1, 2]
