"""The process that reads a live source: `python -m pipeline.sources.live.reader MEMORY MESSAGES`.

It opens what it is told to, decodes, and puts RGB pictures into shared memory (link.py). It may be
killed at any moment. What it imports is kept small, because a reconnection waits for it.
"""

from __future__ import annotations

import os
import sys
import time
from fractions import Fraction
from typing import Any

import av
import av.error
import av.logging

from pipeline.errors import SourceError
from pipeline.planes import Planes
from pipeline.sources.color import Converter, matrix_of
from pipeline.sources.container import video_stream
from pipeline.sources.live.address import Address
from pipeline.sources.live.feed import Feed, Pace, Picture
from pipeline.sources.live.link import Link
from pipeline.sources.live.open import ffmpeg_options, opened
from pipeline.sources.live.trouble import Trouble, explain


def main() -> None:
    memory, messages = int(sys.argv[1]), int(sys.argv[2])
    av.logging.set_level(av.logging.PANIC)
    link = Link(orders=os.dup(0), messages=messages, memory=memory)
    link.send("ready")
    while True:
        order = link.next_open()
        address = Address(order["address"], order["url"], order["shown"])
        try:
            _read(link, address, order)
        except (SourceError, av.error.FFmpegError, OSError) as error:
            trouble = Trouble(str(error)) if isinstance(error, SourceError) else None
            trouble = trouble or explain(error, address)
            link.send("broken", text=trouble.text, final=trouble.final)
        else:
            link.send("end")


def _read(link: Link, address: Address, order: dict[str, Any]) -> None:
    options = ffmpeg_options(address, order["transport"], order["mode"])
    with opened(address, options) as container:
        stream = video_stream(container, address.shown)
        context = stream.codec_context
        # Threads that each decode a frame of their own would hold back as many frames.
        context.thread_type, context.thread_count = "SLICE", order["threads"]
        recording = address.kind == "http" and bool(container.duration)
        paced = "hls" in container.format.name and not recording
        # FFmpeg makes up the times of a stream of JPEGs.
        timed = container.format.name != "mpjpeg"
        feed = Feed(container, stream, live=not (recording or paced), alive=link.alive)
        convert, pace = Converter(), Pace()
        size: tuple[int, int] | None = order["size"] and tuple(order["size"])
        begun, overrun = False, 0
        for picture in feed.pictures():
            time_s = _time_s(picture) if timed else None
            if paced and time_s is not None:
                pace.wait(time_s)
            slot = None
            if begun:
                slot = link.take_slot(wait=recording)
                if slot is None:
                    overrun += link.granted
                    continue
            image = convert(picture.frame)
            height, width = image.shape[:2]
            if not begun:
                begun, size = True, size or (height, width)
                link.make_room(*size)
                link.send(
                    "opened",
                    recording=recording,
                    paced=paced,
                    finite=bool(container.duration),
                    length_s=(container.duration or 0) / av.time_base,
                    size=size,
                    **_describe(stream, picture, turned=height != picture.frame.height),
                )
                slot = link.take_slot(wait=recording)
                if slot is None:
                    continue
            assert slot is not None
            assert size is not None
            assert link.slots is not None
            if (height, width) != size:
                from pipeline.fit import fit  # rare

                image = fit(image.rgb if isinstance(image, Planes) else image, *size)
            matrix = link.slots.write(slot, image)
            link.send(
                "frame",
                slot=slot,
                matrix=matrix,
                time_s=time_s,
                arrived_at=time.perf_counter() if paced else picture.arrived_at,
                duration_s=float((picture.frame.duration or 0) * (picture.frame.time_base or 0)),
                native=(height, width),
                lost={
                    "undecodable": feed.counts.undecodable,
                    "behind": feed.counts.behind,
                    "overrun": overrun,
                },
                damaged=feed.counts.damaged,
            )
        if not begun:
            raise SourceError("it has a video stream, but no picture can be decoded")


def _time_s(picture: Picture) -> float | None:
    """The picture's time in the stream, if it has one."""
    frame = picture.frame
    stamp = frame.pts if frame.pts is not None else frame.dts
    return None if stamp is None or not frame.time_base else float(stamp * frame.time_base)


def _describe(stream: Any, picture: Picture, turned: bool) -> dict[str, Any]:
    """What a SourceInfo holds beyond the size."""
    frame = picture.frame
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    rate = stream.average_rate or stream.guessed_rate
    return {
        "rate": str(Fraction(rate)) if rate else None,
        "pixel_aspect": str(1 / aspect if turned else aspect),
        "codec": stream.codec_context.codec.name,
        "matrix": int(matrix_of(frame.colorspace, frame.width, frame.height)),
        "color_primaries": int(frame.color_primaries),
        "color_trc": int(frame.color_trc),
        "frames": stream.frames or None,
    }


if __name__ == "__main__":
    main()
