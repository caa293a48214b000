"""Files that appear under their final name only when they are whole."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error

from pipeline.errors import SinkError


@dataclass
class Output:
    """What a sink has made; a row of the report's `outputs`."""

    path: Path
    """The final name, or the partial one if the run failed; both are playable."""
    codec: str
    frames: int = 0
    complete: bool = False
    url: str = ""
    """Where a stream goes, without its credentials; empty for what is on a disk."""

    @property
    def where(self) -> str:
        """The place as people know it."""
        return self.url or str(self.path)

    def as_dict(self) -> dict[str, Any]:
        return {
            "path": self.where,
            "frames": self.frames,
            "codec": self.codec,
            "complete": self.complete,
        }


def check_file(path: Path, force: bool) -> None:
    """Raises SinkError unless a file can be made at `path`; overwriting needs `force`."""
    with disk_errors(path):
        if path.is_dir():
            raise SinkError(f"{path} is a folder; name a file in it")
        if path.exists() and not path.is_file():
            raise SinkError(f"{path} is not a regular file; name another")
        if path.exists() and not force:
            raise SinkError(f"{path} exists; --force overwrites it")
        _check_folder(path.parent)


def check_folder(path: Path, force: bool) -> None:
    """Raises SinkError unless files can be made in folder `path`; a filled one needs `force`."""
    with disk_errors(path):
        if path.exists() and not path.is_dir():
            raise SinkError(f"{path} is a file; name a folder")
        if path.is_dir():
            _check_folder(path)
            if not force and any(path.iterdir()):
                raise SinkError(f"folder {path} is not empty; --force writes into it all the same")
        else:
            _check_folder(path.parent)


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise SinkError(f"there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SinkError(f"folder {folder} is not writable")


@contextmanager
def whole_file(output: Output, count: Callable[[Path], int]) -> Iterator[Path]:
    """Gives a name beside `output.path` to write to, and renames it at the block's good end.

    After an error the partial file stays, for what is in it can be used, and `output.path` says
    where, and `output.frames` what `count` finds in it: a muxer that meets a full disk loses what
    it still held. Without a single frame no file is made. Errors of the disk become SinkError.
    """
    # A link is followed, not replaced.
    final = output.path.resolve() if output.path.is_symlink() else output.path
    with disk_errors(output.path):
        partial = _new_partial(final)
    try:
        with disk_errors(output.path):
            yield partial
            if output.frames:
                partial.replace(final)
                output.complete = True
            else:
                partial.unlink(missing_ok=True)
    except BaseException:
        if output.frames and partial.stat().st_size:
            output.path, output.frames = partial, min(output.frames, count(partial))
        else:
            partial.unlink(missing_ok=True)
        raise


def _new_partial(final: Path) -> Path:
    """Makes an empty file of a name that nobody has: a partial file of an earlier run may be what
    somebody wants to keep, or this very run's source.
    """
    for number in itertools.count(1):
        mark = "partial" if number == 1 else f"partial-{number}"
        partial = final.with_name(f"{final.stem}.{mark}{final.suffix}")
        with suppress(FileExistsError):
            partial.open("xb").close()
            return partial
    raise AssertionError("numbers do not end")


def playable_frames(path: Path) -> int:
    """How many video frames are in a file, up to where it breaks off."""
    count = 0
    with suppress(OSError, av.error.FFmpegError):
        with av.open(str(path)) as container:
            for packet in container.demux(video=0):
                count += bool(packet.size)
    return count


def whole_lines(path: Path) -> int:
    """How many lines of a text file are whole."""
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return sum(line.endswith(b"\n") for line in file)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns the system's errors into one line about `path`."""
    try:
        yield
    except SinkError:
        raise
    except (OSError, av.error.FFmpegError) as error:
        reason = {
            errno.ENOSPC: "the disk is full",
            errno.EFBIG: "the file may not grow further (a limit of the system or disk)",
            errno.EDQUOT: "the disk quota is used up",
            errno.EACCES: "permission denied",
            errno.EROFS: "the disk is read-only",
        }.get(error.errno or 0, error.strerror or str(error))
        raise SinkError(f"{path} cannot be written: {reason}") from error
