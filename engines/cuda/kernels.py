"""The kernels of kernels.cu, compiled once for each kind of card and kept."""

# mypy: disable-error-code="import-not-found, import-untyped, unused-ignore"

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.cache import cache_dir, write_atomically
from engines.cuda.device import Device
from engines.cuda.picture import NetworkInput, Placed
from engines.errors import EngineUnavailableError, one_line

SOURCE = Path(__file__).with_name("kernels.cu")
# Without fused multiply-adds the card rounds as a host does that compiles the same source.
FLAGS = ("-cubin", "-std=c++17", "-fmad=false")
NO_NVCC = (
    "nvcc, which compiles the kernels for this card once, is neither on PATH nor in "
    "$CUDA_HOME/bin nor in /usr/local/cuda/bin; install the CUDA toolkit "
    "(docs.nvidia.com/cuda, or your distribution's package) or set CUDA_HOME"
)
# Where NVIDIA's installer puts it.
TOOLKIT = Path("/usr/local/cuda/bin")
_COMPILE_TIMEOUT_S = 300.0

# The structs of kernels.cu as struct.pack has them.
_PICTURE, _NETWORK, _MATRIX, _LABELS = "3P3i4x", "10i", "12i", "P4i"
_FORMATS = {
    "resize_rgb": f"{_PICTURE}2iP{_NETWORK}",
    "resize_planes": f"{_PICTURE}2iP{_NETWORK}{_MATRIX}",
    "paint_rgb": f"{_PICTURE}{_PICTURE}2i{_LABELS}2Pi",
    "paint_planes": f"{_PICTURE}{_PICTURE}2i{_LABELS}2Pi",
}
_BLOCK = (32, 8, 1)
# Pixels that a thread writes, across and down.
_RESIZED, _RGB, _PLANES = (1, 1), (4, 1), (4, 2)
# Positions and the weights of labels are 32-bit integers.
_MOST_SIDE, _MOST_PIXELS = 32767, 2**26 - 1


def paint_table(
    colors: NDArray[Any], painted: NDArray[np.bool_], share: float
) -> NDArray[np.float32]:
    """What `Kernels.paint` takes, float32 (256, 4), of what the classes look like.

    `colors`: (256, 3), in the picture's own colour space. `painted`: (256,). `share`: of the
    colour in the mixture, 0 to 1; of what is painted with none, `line` still shows contours.
    """
    table = np.empty((256, 4), np.float32)
    table[:, :3] = colors
    table[:, 3] = np.where(painted, share if share > 0 else -1.0, 0.0)
    return table


class Kernels:
    """Puts pictures into the network's size and labels onto pictures, each in one launch.

    Made and used while the device's context is current. A launch allocates nothing, waits for
    nothing and takes its arguments by value, so it can be captured into a graph.
    """

    def __init__(self, device: Device) -> None:
        """Loads what was compiled for such a card, or compiles it, which takes seconds.

        Raises EngineUnavailableError where nvcc is missing or fails.
        """
        import pycuda.driver as cuda

        compiled = load_or_compile(device.compute_capability)
        try:
            self._module: Any = cuda.module_from_buffer(compiled)
        except cuda.Error as error:
            # Another nvcc may do better; as long as this is kept, none would be asked.
            kept = _kept(device.compute_capability)
            if kept is not None:
                kept.unlink(missing_ok=True)
            raise EngineUnavailableError(
                f"GPU {device.number} ({device.name}) does not take the kernels compiled for "
                f"compute capability {device.compute_capability}: {one_line(error)}"
            ) from error
        self._functions: dict[str, Any] = {}
        for name, arguments in _FORMATS.items():
            self._functions[name] = self._module.get_function(name)
            self._functions[name].prepare(arguments)

    def resize(
        self,
        stream: Any,
        picture: Placed,
        out: int,
        network: NetworkInput,
        into_rgb: Sequence[float] | None = None,
    ) -> None:
        """Starts writing uint8 (network height, network width, 3) RGB at `out`.

        `into_rgb` makes R, G, B of Y, U, V, 1: the 3 rows of 4 numbers of a picture in planes.
        """
        layout = picture.layout
        _check_size(layout.height, layout.width)
        _check_size(network.height, network.width)
        rgb = layout.format == "rgb24"
        matrix = () if into_rgb is None else _in_1024ths(into_rgb)
        if len(matrix) != (0 if rgb else 12):
            raise ValueError(f"{layout.format} with a matrix of {len(matrix)} numbers")
        where = (network.top, network.left, network.inner_height, network.inner_width)
        self._launch(
            "resize_rgb" if rgb else "resize_planes",
            stream,
            (network.height, network.width),
            _RESIZED,
            *_placed(picture),
            layout.height,
            layout.width,
            out,
            network.height,
            network.width,
            *where,
            *network.fill,
            int(network.area),
            *matrix,
        )

    def paint(
        self,
        stream: Any,
        picture: Placed,
        labels: int,
        table: int,
        out: Placed,
        out_labels: int,
        network: NetworkInput,
        line: int = 0,
    ) -> None:
        """Starts painting the classes of `labels` onto a picture.

        `labels`: uint8 (network height, network width). `table`: float32 (256, 4) of each class's
        colour in the picture's own colour space and its share in the mixture (0: not painted,
        below: lines only), see `paint_table`; its address a multiple of 16. `out`: of the same
        size, RGB if the picture is, else with planes of either kind; it may be `picture` itself.
        `out_labels`: where uint8 (height, width) goes, or 0. `line`: the width, pixels, of lines
        between classes in full colour, or 0.
        """
        layout = picture.layout
        height, width = layout.height, layout.width
        _check_size(height, width)
        rgb = layout.format == "rgb24"
        theirs = out.layout
        if (theirs.height, theirs.width, theirs.format == "rgb24") != (height, width, rgb):
            raise ValueError(f"{layout} cannot be painted into {theirs}")
        if out.address == picture.address and _placed(out) != _placed(picture):
            raise ValueError("a picture painted in place keeps its layout")
        if table % 16:
            raise ValueError(f"the table's address, {table:#x}, is no multiple of 16")
        inner_height, inner_width = network.inner_height, network.inner_width
        self._launch(
            "paint_rgb" if rgb else "paint_planes",
            stream,
            (height, width),
            _RGB if rgb else _PLANES,
            *_placed(picture),
            *_placed(out),
            height,
            width,
            labels + network.top * network.width + network.left,
            network.width,
            inner_height,
            inner_width,
            int(height > inner_height and width > inner_width),
            table,
            out_labels,
            line,
        )

    def _launch(
        self, name: str, stream: Any, size: tuple[int, int], each: tuple[int, int], *values: Any
    ) -> None:
        """A thread for `each` (across, down) pixels of `size` (height, width)."""
        across, down = each[0] * _BLOCK[0], each[1] * _BLOCK[1]
        grid = -(-size[1] // across), -(-size[0] // down)
        self._functions[name].prepared_async_call(grid, _BLOCK, stream, *values)


def _placed(picture: Placed) -> tuple[int, ...]:
    """A struct Picture."""
    layout, u = picture.layout, picture.chroma_address
    v = u + layout.u_to_v
    return picture.address, u, v, layout.pitch, layout.chroma_pitch, layout.chroma_step


def _in_1024ths(matrix: Sequence[float]) -> tuple[int, ...]:
    """A struct Matrix, as OpenCV's transform has one of bytes."""
    return tuple(round((v + 0.5 if i % 4 == 3 else v) * 1024) for i, v in enumerate(matrix))


def _check_size(height: int, width: int) -> None:
    if max(height, width) > _MOST_SIDE or height * width > _MOST_PIXELS:
        raise ValueError(f"{height}x{width} is too large for the kernels' 32-bit positions")


def load_or_compile(capability: str) -> bytes:
    """The kernels for a compute capability such as `8.9`: from the cache, else by nvcc."""
    kept = _kept(capability)
    compiled = None if kept is None else _read(kept)
    if compiled is None:
        compiled = _compile(_arch(capability))
        if kept is not None:
            # Processes that start together each write the whole file; the last one stays. Without
            # room for it the next start waits for nvcc again.
            with suppress(OSError):
                write_atomically(kept, hashlib.sha256(compiled).digest() + compiled)
    return compiled


def _arch(capability: str) -> str:
    return f"sm_{capability.replace('.', '')}"


def _kept(capability: str) -> Path | None:
    """Where such kernels are kept: the name changes with all that they are made of."""
    folder = cache_dir("kernels")
    if folder is None:
        return None
    arch = _arch(capability)
    made_of = b"\0".join([SOURCE.read_bytes(), " ".join((*FLAGS, arch)).encode()])
    return folder / f"{arch}-{hashlib.sha256(made_of).hexdigest()[:32]}.cubin"


def _read(path: Path) -> bytes | None:
    """What was kept, behind its checksum; None if it is not there or damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, compiled = data[:32], data[32:]
    return compiled if hashlib.sha256(compiled).digest() == digest else None


def find_nvcc() -> str | None:
    """Where nvcc is, if anywhere."""
    home = os.environ.get("CUDA_HOME")
    folders = [Path(home) / "bin", TOOLKIT] if home else [TOOLKIT]
    for path in (None, *map(str, folders)):
        found = shutil.which("nvcc", path=path)
        if found:
            return found
    return None


def _compile(arch: str) -> bytes:
    nvcc = find_nvcc()
    if nvcc is None:
        raise EngineUnavailableError(NO_NVCC)
    with tempfile.TemporaryDirectory(prefix="streamseg-kernels-") as folder:
        out = Path(folder) / "kernels.cubin"
        words = [nvcc, *FLAGS, f"-arch={arch}", "-o", str(out), str(SOURCE)]
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, timeout=_COMPILE_TIMEOUT_S, check=False
            )
            if done.returncode == 0:
                return out.read_bytes()
            said = done.stderr + done.stdout
        except (OSError, subprocess.SubprocessError) as error:
            said = str(error)
    lines = [line for line in said.splitlines() if re.search("error|fatal", line, re.I)]
    why = one_line(EngineUnavailableError((lines or said.splitlines() or ["no word"])[0]))
    raise EngineUnavailableError(
        f"{nvcc} cannot compile the kernels for {arch}: {why} (a card newer than the CUDA toolkit "
        "needs a newer toolkit, and nvcc needs g++)"
    )
