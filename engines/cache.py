"""The user's own cache folder: wrapped graphs and what runtimes compile from them."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path


def cache_dir(*parts: str) -> Path | None:
    """A folder of the user's cache, made with mode 0700 if it is not there; None if it cannot be
    had.

    `$STREAMSEG_CACHE`, else the platform's place: `$XDG_CACHE_HOME/streamseg` (~/.cache),
    ~/Library/Caches/streamseg on macOS, %LOCALAPPDATA%/streamseg/cache on Windows. Compiled
    models are code, so a folder that others may write is not used.
    """
    named = os.environ.get("STREAMSEG_CACHE")
    if named:
        root = Path(named)
    elif sys.platform == "darwin":
        root = Path("~/Library/Caches/streamseg").expanduser()
    elif sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
        root = Path(local).expanduser() / "streamseg" / "cache"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "streamseg"
    folder = root.joinpath(*parts)
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name == "posix" and not (_is_ours(root) and _is_ours(folder)):
            return None
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _is_ours(folder: Path) -> bool:
    status = folder.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def write_atomically(path: Path, data: bytes) -> None:
    """Writes the whole file or none of it, so that a reader never sees half."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a power cut can leave the name without the content
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
