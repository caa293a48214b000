"""What `streamseg doctor` finds of NVIDIA: GPUs, driver, CUDA, TensorRT, PyCUDA, video units.

Whatever is missing is a pair: `problem` says what, `fix` is the command that installs it.
"""

from __future__ import annotations

import ctypes.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

DECODERS = ("h264_cuvid", "hevc_cuvid", "av1_cuvid")
ENCODERS = ("h264_nvenc", "hevc_nvenc", "av1_nvenc")

# Seconds. TensorRT's first import reads a gigabyte from the disk.
_IMPORT_S, _TOOL_S = 120, 20
_ABSENT = "no GPU, or no driver (nvidia-smi finds none)"
_LEAST_TENSORRT = (8, 6)

# Importing happens in a process of its own: it may print, take the GPU's memory, or crash. It
# looks where this process looks (argv[1]) and answers on its last line.
_PROBE = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
answer = {}
try:
    if sys.argv[2] == "tensorrt":
        import tensorrt as module
        version = getattr(module, "__version__", None)
        answer["places"] = [str(place) for place in getattr(module, "__path__", [])]
    else:
        import pycuda, pycuda.driver as driver
        version = pycuda.VERSION_TEXT
        driver.init()
    answer["version"] = None if version is None else str(version)
except Exception as error:
    answer["error"] = " ".join(str(error).split()) or type(error).__name__
    answer["missing"] = isinstance(error, ModuleNotFoundError)
print()
print(json.dumps(answer))
"""


def examine_nvidia() -> dict[str, Any]:
    """The report's `nvidia`; without a GPU or driver all but `problem` and `fix` is empty."""
    from engines.choose import has_nvidia_gpu
    from engines.cuda.device import driver_version

    found: dict[str, Any] = {
        "gpus": [], "driver": None, "cuda": None, "toolkit": None, "tensorrt": None,
        "pycuda": None, "decode": [], "encode": [], "problem": None, "fix": None,
    }  # fmt: skip
    if not has_nvidia_gpu() and not is_jetson():
        found["problem"] = _ABSENT
        if _has_card():
            found["problem"] = "a card is here, but no driver (nvidia-smi finds none)"
            found["fix"] = "sudo ubuntu-drivers install, then restart the machine"
        return found
    found["gpus"] = _gpus()
    driver = driver_version()
    found["driver"] = None if driver == "unknown" else driver
    said = _summary()
    version = re.search(r"CUDA\s+(?:\w+\s+)?Version\s*:\s*(\d+\.\d+)", said)
    found["cuda"] = version[1] if version else None
    if not found["gpus"]:
        line = next((" ".join(li.split()) for li in said.splitlines() if li.strip()), "")
        found["problem"] = f"the driver shows no GPU: {line[:200] or 'nvidia-smi does not answer'}"
        found["fix"] = _driver_fix()
    found["toolkit"] = _toolkit(found["cuda"])
    found["tensorrt"] = _tensorrt(found["cuda"])
    found["pycuda"] = _pycuda(found["toolkit"])
    found["decode"], found["encode"] = _video(found["driver"])
    return found


def nvidia_lines(found: dict[str, Any]) -> list[str]:
    """The report's `nvidia` as people read it."""
    if found["problem"] and found["toolkit"] is None:
        return [_with_fix(found["problem"], found["fix"])]
    lines = []
    for gpu in found["gpus"]:
        parts = [gpu["name"]]
        if gpu["compute_capability"]:
            parts.append(f"compute capability {gpu['compute_capability']}")
        if gpu["memory_mib"]:
            parts.append(f"{gpu['memory_mib']} MiB")
        lines.append(f"GPU {gpu['number']}: {', '.join(parts)}")
    if found["problem"]:
        lines.append(_with_fix(found["problem"], found["fix"]))
    if len(found["gpus"]) > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        # CUDA's own order is the fastest first, nvidia-smi's is the bus's.
        lines.append(
            "these are nvidia-smi's numbers; for --device to mean the same: "
            "export CUDA_DEVICE_ORDER=PCI_BUS_ID"
        )
    lines.append(f"driver {found['driver'] or 'unknown'}, for CUDA {found['cuda'] or 'unknown'}")
    for key, name in (("toolkit", "CUDA toolkit"), ("tensorrt", "TensorRT"), ("pycuda", "PyCUDA")):
        row = found[key]
        if row["version"]:
            lines.append(f"{name} {row['version']}")
        if row["problem"]:
            lines.append(f"{name}: {_with_fix(row['problem'], row['fix'])}")
    for key, name in (("decode", "decoders"), ("encode", "encoders")):
        good = [row["name"] for row in found[key] if not row["problem"]]
        if good:
            lines.append(f"{name} {', '.join(good)}")
        bad: dict[str, list[str]] = {}
        for row in found[key]:
            if row["problem"]:
                bad.setdefault(_with_fix(row["problem"], row["fix"]), []).append(row["name"])
        lines += [f"{', '.join(names)}: {why}" for why, names in bad.items()]
    return lines


def is_jetson() -> bool:
    """Whether this is a Jetson, whose CUDA, TensorRT and video units come with JetPack."""
    return Path("/etc/nv_tegra_release").exists()


def _with_fix(problem: str, fix: str | None) -> str:
    return f"{problem}; fix: {fix}" if fix else problem


def _has_card() -> bool:
    """Whether the PCI bus has a display or 3D controller (class 03) of NVIDIA's (10de)."""
    for device in Path("/sys/bus/pci/devices").glob("*"):
        try:
            vendor, kind = ((device / name).read_text() for name in ("vendor", "class"))
        except OSError:
            continue
        if vendor.strip() == "0x10de" and kind.startswith("0x03"):
            return True
    return False


def _gpus() -> list[dict[str, Any]]:
    from engines.cuda.device import query_gpus

    rows = query_gpus("index", "name", "memory.total", "compute_cap")
    if not rows:  # drivers before 510 do not know compute_cap, and refuse the whole question
        rows = [[*row, ""] for row in query_gpus("index", "name", "memory.total")]
    gpus = []
    for row in rows:
        if len(row) != 4 or not row[0].isdecimal():  # "No devices were found"
            continue
        memory = re.match(r"\d+", row[2])  # a Jetson's is [N/A]
        gpus.append(
            {
                "number": int(row[0]),
                "name": row[1],
                "compute_capability": row[3] if re.fullmatch(r"\d+\.\d+", row[3]) else None,
                "memory_mib": int(memory[0]) if memory else None,
            }
        )
    return gpus


def _summary() -> str:
    """What plain nvidia-smi prints: a table with CUDA's version, or why it cannot."""
    tool = shutil.which("nvidia-smi")
    return _output([tool]) if tool else ""


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TOOL_S, check=False, errors="replace"
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return done.stdout + done.stderr


def _driver_fix() -> str:
    if is_jetson():
        return "sudo apt-get install nvidia-jetpack"
    if _in_container():
        return "start the container with --gpus all (NVIDIA Container Toolkit on the host)"
    return "sudo ubuntu-drivers install, then restart the machine"


def _in_container() -> bool:
    return any(Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv"))


def _toolkit(cuda: str | None) -> dict[str, Any]:
    """nvcc, which PyCUDA needs to be compiled and to compile kernels."""
    on_path = shutil.which("nvcc")
    roots = [os.environ.get(name) for name in ("CUDA_ROOT", "CUDA_HOME", "CUDA_PATH")]
    places = [Path(root) / "bin" for root in (*roots, "/usr/local/cuda") if root]
    path = on_path or next((nvcc for p in places if (nvcc := shutil.which("nvcc", path=p))), None)
    if path is None:
        package = f"cuda-toolkit-{cuda.replace('.', '-')}" if cuda else "cuda-toolkit"
        source = "from NVIDIA's package source: docs/nvidia.md"
        return {
            "version": None,
            "path": None,
            "problem": "nvcc is not found",
            "fix": f"sudo apt-get install {package} ({source})",
        }
    said = _output([path, "--version"])
    known = re.search(r"release (\d+\.\d+)", said)
    version = known[1] if known else None
    problem: str | None = None
    fix: str | None = None
    if version is None:
        problem = f"{path} does not tell its version"
    elif on_path is None:
        problem, fix = "nvcc is not in PATH", f"export PATH={Path(path).parent}:$PATH"
    return {"version": version, "path": path, "problem": problem, "fix": fix}


def _probe(module: str) -> dict[str, Any]:
    """What importing it in another process says: `version`, or `error` and `missing`."""
    command = [sys.executable, "-c", _PROBE, json.dumps(sys.path), module]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_IMPORT_S, check=False,
            errors="replace",
        )  # fmt: skip
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError) as error:
        return {"error": " ".join(str(error).split())[-200:]}
    except (ValueError, IndexError):
        return {"error": f"importing it ends Python with code {done.returncode}"}
    return answer


def _tensorrt(cuda: str | None) -> dict[str, Any]:
    answer = _probe("tensorrt")
    version, error = answer.get("version"), answer.get("error")
    package = "tensorrt-cu12" if cuda and cuda.startswith("12.") else "tensorrt-cu13"
    fix = f"pip install {package}"
    if is_jetson():
        fix = (
            "sudo apt-get install python3-libnvinfer, and a venv made with "
            "python3 -m venv --system-site-packages (docs/nvidia.md)"
        )
    elif error and not answer.get("missing"):
        # The bindings are there: pip takes the package for installed unless it is forced.
        fix = f"pip install --force-reinstall --no-cache-dir {package}"
    problem = None
    if error:
        problem = f"cannot be imported: {error}"
    elif version is None:
        place = ", ".join(answer.get("places", [])) or "what Python finds"
        problem = f"not installed: {place} is a folder without TensorRT in it (type stubs?)"
    elif (numbers := tuple(int(n) for n in re.findall(r"\d+", version)[:2])) < _LEAST_TENSORRT:
        problem = f"{'.'.join(map(str, numbers))} is too old; 8.6 is the oldest that works"
        fix = fix.replace("install ", "install --upgrade ") if not is_jetson() else fix
    return {"version": version, "problem": problem, "fix": fix if problem else None}


def _pycuda(toolkit: dict[str, Any]) -> dict[str, Any]:
    answer = _probe("pycuda")
    error = answer.get("error")
    if not error:
        return {"version": answer.get("version"), "problem": None, "fix": None}
    steps = []
    if toolkit["problem"]:
        steps.append(toolkit["fix"] or "a working nvcc")
    if shutil.which("g++") is None:
        steps.append("sudo apt-get install g++")
    if answer.get("missing"):
        steps.append("pip install pycuda")
    else:
        steps.append("pip install --force-reinstall --no-cache-dir --no-binary pycuda pycuda")
    problem = f"cannot be used: {error}"
    return {"version": None, "problem": problem, "fix": ", then ".join(steps)}


def _video(driver: str | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """NVDEC and NVENC as this PyAV's FFmpeg can use them."""
    import av

    from pipeline.errors import SinkError
    from pipeline.sinks.encoder import choose_encoder

    def row(name: str, library: str, kind: str) -> dict[str, Any]:
        problem = fix = None
        if name not in av.codecs_available:
            problem = f"this PyAV {av.__version__} is built without it"
            fix = "pip install --force-reinstall --only-binary av av"
        elif is_jetson():
            problem = "a Jetson's video unit is not reached this way; the processor does it"
        elif sys.platform == "linux" and ctypes.util.find_library(library) is None:
            problem = f"the driver's lib{library} is not found"
            fix = _library_fix(kind, driver)
        return {"name": name, "problem": problem, "fix": fix}

    decode = [row(name, "nvcuvid", "decode") for name in DECODERS]
    encode = [row(name, "nvidia-encode", "encode") for name in ENCODERS]
    if encode[0]["problem"] is None:
        try:
            choose_encoder(".mp4", ENCODERS[0])
        except SinkError:
            encode[0]["problem"] = "does not open: no NVENC unit, too old a driver, or all in use"
    return decode, encode


def _library_fix(kind: str, driver: str | None) -> str:
    if _in_container():
        return "start the container with -e NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"
    branch = driver.split(".")[0] if driver else "BRANCH"
    return f"sudo apt-get install libnvidia-{kind}-{branch}"
