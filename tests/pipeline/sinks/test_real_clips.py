"""Videos of the world, where the folder that STREAMSEG_SHARED names has some in media/."""

import os
from itertools import islice
from pathlib import Path

import av
import pytest

from pipeline.sinks import open_output
from pipeline.sources import open_source
from tests.pipeline.sinks.hand_made import colored, drive

SHARED = os.environ.get("STREAMSEG_SHARED")
CLIPS = sorted(Path(SHARED, "media").glob("*.mp4")) if SHARED else []


@pytest.mark.skipif(not CLIPS, reason="STREAMSEG_SHARED names no folder with media/*.mp4")
@pytest.mark.parametrize("clip", CLIPS, ids=[c.stem for c in CLIPS])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_real_clip_keeps_its_times_and_its_sound(tmp_path, clip, suffix):
    path = tmp_path / f"out{suffix}"
    source = open_source(clip, max_frames=60)
    before = [f.pts * f.time_base for f in drive(open_output(path, source), colored(source))]
    written = open_source(path)
    after = [f.pts * f.time_base for f in written.frames()]
    tick = written.info.time_base if suffix == ".mkv" else 0
    assert len(after) == 60
    assert all(abs(a - b) <= tick / 2 for a, b in zip(after, before, strict=True))
    assert written.info.matrix == source.info.matrix
    for number in range(audio_streams(clip)):
        kept = packets(path, number)
        assert kept
        assert kept == list(islice(packets(clip, number), len(kept)))


def audio_streams(path):
    with av.open(str(path)) as file:
        return len(file.streams.audio)


def packets(path, number):
    with av.open(str(path)) as file:
        return [bytes(p) for p in file.demux(audio=number) if p.size]
