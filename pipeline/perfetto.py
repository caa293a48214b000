"""A recorder's records as a trace that chrome://tracing and ui.perfetto.dev open.

The Chrome trace event format (the "Trace Event Format" document of the Chromium project): a thread
is a row, a span is a `ph: X` event in it, an arrow from row to row follows a frame (`s`, `t`, `f`),
a `b`/`e` pair is a frame from capture to delivery, a `C` event is how full a channel is from then
on. Times are microseconds from the start of the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import SinkError
from pipeline.sinks.destination import Output, whole_file
from pipeline.trace import Kind, Record, Recorder, Track

# A hand-over without waiting takes a few microseconds; spans of those would only hide the others.
_LEAST_WAIT_S = 2e-5

_WAITS = {Kind.GET: "wait for a frame", Kind.PUT: "wait for room", Kind.ENGINE: "wait for engine"}
_PROCESS = 1


@dataclass
class _Hand:
    """What a thread holds between two records."""

    since: float
    """When its last record ended."""
    index: int | None = None
    """The frame that it has got and not yet given away."""


def trace_events(recorder: Recorder) -> Iterator[dict[str, Any]]:
    """Events of a run that has ended, in no order but each thread's own; in constant memory.

    A frame has one span of category `work` in each stage that it left and in each sink: from when
    the thread was free for it to when it handed it on. A wait is a span of category `wait`.
    """
    yield _event("M", 0, name="process_name", args={"name": "streamseg"})
    for track in recorder.tracks:
        yield _event("M", track.number, name="thread_name", args={"name": track.name})
        order = {"sort_index": track.number}
        yield _event("M", track.number, name="thread_sort_index", args=order)
    for event in _all_events(recorder):
        event["ts"] = round(1e6 * (event["ts"] - recorder.begun), 3)
        yield event


def _all_events(recorder: Recorder) -> Iterator[dict[str, Any]]:
    """All events that have a time, `ts` still in seconds of time.perf_counter."""
    last = recorder.tracks[-1].number if recorder.tracks else 0
    hands = {track.number: _Hand(recorder.begun) for track in recorder.tracks}
    for track, record in recorder.records():
        yield from _events_of(recorder, track, record, hands[track.number], last)
    for track in recorder.tracks:
        # A caller that breaks out of its loop asks for no more: its last frame ends where it began.
        hand = hands[track.number]
        if track.terminal and hand.index is not None:
            yield from _work(track, hand.index, hand.since, hand.since, last)


def _events_of(
    recorder: Recorder, track: Track, record: Record, hand: _Hand, last: int
) -> Iterator[dict[str, Any]]:
    """The events of one record; `last` is the number of the track where ways end."""
    kind = record.kind
    if kind in _WAITS and record.ended - record.begun >= _LEAST_WAIT_S:
        yield _span(track, _WAITS[kind], "wait", record.begun, record.ended)
    if kind == Kind.ENGINE:
        return
    if kind != Kind.END:
        channel = recorder.channels[record.channel]
        yield _event(
            "C", track.number, name=f"channel {channel.name}", ts=record.ended,
            args={"frames": record.length},
        )  # fmt: skip
    frame = {"cat": "frame", "name": "frame", "id": record.index}
    if kind == Kind.DROP:
        args = {"frame": record.index}
        yield _event("i", track.number, name="dropped", ts=record.ended, s="t", args=args)
        yield _event("e", track.number, ts=record.ended, **frame, args={"dropped": True})
        return
    if track.terminal:
        if kind != Kind.PUT:  # the caller's puts, to sinks, are part of its work on the frame
            if hand.index is not None:
                yield from _work(track, hand.index, hand.since, record.begun, last)
            hand.index = record.index if kind == Kind.GET else None
            hand.since = record.ended
            if kind == Kind.GET and track.name == "deliver":
                yield _event("e", track.number, ts=record.ended, **frame)
        return
    if kind == Kind.PUT:
        yield from _work(track, record.index, hand.since, record.begun, last)
        if track.number == 0:
            yield _event("b", track.number, ts=record.begun, **frame)
        hand.index = None
    elif hand.index is not None and hand.since < record.begun:
        # It asks for more with a frame in its hand, or is stopped with one.
        name = f"{track.name} (ended)" if kind == Kind.END else f"{track.name} (reads ahead)"
        yield _span(track, name, "held", hand.since, record.begun, frame=hand.index)
    if kind == Kind.GET:
        hand.index = record.index
    hand.since = record.ended


def _work(
    track: Track, index: int, begun: float, ended: float, last: int
) -> Iterator[dict[str, Any]]:
    yield _span(track, track.name, "work", begun, ended, frame=index)
    step = "s" if track.number == 0 else "f" if track.number == last else "t"
    end = {"bp": "e"} if step == "f" else {}
    # An arrow fastens to the span around its time.
    middle = (begun + ended) / 2
    yield _event(step, track.number, name="way", cat="way", id=index, ts=middle, **end)


def _span(
    track: Track, name: str, category: str, begun: float, ended: float, **args: int
) -> dict[str, Any]:
    duration = round(1e6 * max(0.0, ended - begun), 3)
    more = {"args": args} if args else {}
    return _event("X", track.number, name=name, cat=category, ts=begun, dur=duration, **more)


def _event(phase: str, thread: int, **more: Any) -> dict[str, Any]:
    return {"ph": phase, "pid": _PROCESS, "tid": thread, **more}


def write_trace(recorder: Recorder, path: Path, about: dict[str, Any] | None = None) -> int:
    """Writes the trace, whole or not at all, and returns how many events it has.

    `about` is put beside the events as `otherData`. To be called when the run has ended, however
    it did. Raises SinkError if the disk does not take it, or has not taken the records.
    """
    if recorder.error is not None:
        raise SinkError(f"no trace: its temporary file could not be written: {recorder.error}")
    output = Output(path, "trace")
    with whole_file(output, lambda partial: 0) as partial:
        with partial.open("w", encoding="utf-8") as file:
            # Event by event: those of an hour are no list to keep in memory.
            file.write('{"displayTimeUnit": "ms", "otherData": ')
            json.dump({**(about or {}), "channels": _capacities(recorder)}, file)
            file.write(', "traceEvents": [')
            for event in trace_events(recorder):
                file.write(",\n" if output.frames else "\n")
                json.dump(event, file, separators=(",", ":"))
                output.frames += 1
            file.write("\n]}\n")
    return output.frames


def _capacities(recorder: Recorder) -> dict[str, int]:
    return {channel.name: channel.capacity for channel in recorder.channels}
