"""Frames made by hand, and driving one sink with them."""

from fractions import Fraction

import numpy as np

from pipeline.frame import Frame
from pipeline.sources.info import SourceInfo
from tests.clips import HEIGHT, WIDTH, numbered


def info(height=HEIGHT, width=WIDTH, time_base=Fraction(1, 25), rate=Fraction(25), **more):
    return SourceInfo(width=width, height=height, time_base=time_base, rate=rate, **more)


def frames(count=12, pictures=None, pts=None, time_base=Fraction(1, 25), durations=None):
    """Numbered frames whose picture is there already."""
    for i in range(count if pictures is None else len(pictures)):
        image = numbered(i) if pictures is None else pictures[i]
        yield Frame(
            index=i,
            pts=i if pts is None else pts[i],
            time_base=time_base,
            image=image,
            duration=1 if durations is None else durations[i],
            picture=image,
        )


def colored(source):
    """A source's frames with themselves as the coloured result."""
    for frame in source.frames():
        frame.picture = frame.image
        yield frame


def masks(labels, **more):
    """Frames with these labels; an array (H, W) a frame."""
    pictures = [np.repeat(ids[..., None], 3, axis=2) for ids in labels]
    for frame, ids in zip(frames(pictures=pictures, **more), labels, strict=True):
        frame.labels = ids
        yield frame


def drive(sink, given):
    """Everything through the sink; the frames that it passed on."""
    return list(sink.run(iter(given)))
