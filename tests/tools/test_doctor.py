"""What `doctor` says of an NVIDIA machine: fake tools in PATH, fake modules in PYTHONPATH."""

import json
import os
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fake tools are scripts")

SUMMARY = """\
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 580.65.06              Driver Version: 580.65.06      CUDA Version: {cuda}     |
+-----------------------------------------+------------------------+----------------------+
"""
# nvidia-smi's answers to --query-gpu, without the header.
FIELDS = {
    "index": ("0", "1"),
    "name": ("NVIDIA GeForce RTX 4090", "NVIDIA H100 80GB HBM3"),
    "memory.total": ("24564 MiB", "81559 MiB"),
    "compute_cap": ("8.9", "9.0"),
    "driver_version": ("580.65.06", "580.65.06"),
}
FAILED = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that "
    "the latest NVIDIA driver is installed and running."
)
NVCC = """\
nvcc: NVIDIA (R) Cuda compiler driver
Copyright (c) 2005-2025 NVIDIA Corporation
Cuda compilation tools, release 13.0, V13.0.88
"""
MISSING = "libnvinfer.so.11: cannot open shared object file: No such file or directory"
LOADED = any(
    Path(p).exists() for p in ("/sys/module/nvidia/version", "/proc/driver/nvidia/version")
)


def script(path, text):
    path.write_text(f"#!{sys.executable}\nimport sys\n{text}")
    path.chmod(0o755)


def smi(folder, gpus=1, cuda="13.0", without=()):
    """A fake nvidia-smi that shows this many GPUs and does not know the fields `without`."""
    script(
        folder / "nvidia-smi",
        f"""
fields, gpus = {FIELDS!r}, {gpus}
query = [w.partition("=")[2].split(",") for w in sys.argv if w.startswith("--query-gpu=")]
if not query:
    print({SUMMARY.format(cuda=cuda)!r})
    sys.exit(0)
unknown = [name for name in query[0] if name in {tuple(without)!r}]
if unknown:
    print(f'Field "{{unknown[0]}}" is not a valid field to query.')
    sys.exit(2)
for i in range(gpus):
    print(", ".join(fields[name][i] for name in query[0]))
if not gpus:
    print("No devices were found")
    sys.exit(6)
""",
    )


def package(folder, name, **files):
    """A fake module; `init` is its __init__.py, the others its submodules."""
    (folder / name).mkdir()
    for file, text in files.items():
        (folder / name / ("__init__.py" if file == "init" else f"{file}.py")).write_text(text)


@pytest.fixture
def machine(tmp_path):
    """Folders `bin` and `lib`, and nothing else of the real machine that doctor could find."""
    for name in ("bin", "lib"):
        (tmp_path / name).mkdir()
    (tmp_path / "bin" / "g++").symlink_to(sys.executable)
    return tmp_path


@pytest.fixture
def doctor(streamseg, machine):
    """Runs doctor; its JSON, and its lines on NVIDIA."""

    def run(**more):
        env = {
            "PATH": f"{machine / 'bin'}",
            "PYTHONPATH": os.pathsep.join(
                [str(machine / "lib"), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
            "CUDA_ROOT": "",
            "CUDA_HOME": "",
            "CUDA_PATH": "",
            **more,
        }
        done = streamseg("doctor", "--json", **env)
        assert (done.code, done.err) == (0, "")
        text = streamseg("doctor", **env)
        assert (text.code, text.err) == (0, "")
        lines = [line[10:] for line in text.out.splitlines() if line.startswith("nvidia ")]
        return json.loads(done.out), lines

    return run


@pytest.fixture
def examine(doctor):
    """Runs doctor; what its JSON has under `nvidia`, and its lines on it."""

    def run(**more):
        report, lines = doctor(**more)
        return report["nvidia"], lines

    return run


def complete(machine):
    """TensorRT, PyCUDA and nvcc as a good installation has them."""
    package(machine / "lib", "tensorrt", init='print("a warning")\n__version__ = "11.4.0.106"\n')
    package(
        machine / "lib",
        "pycuda",
        init='VERSION_TEXT = "2026.1"\n',
        driver="def init():\n    pass\n",
    )
    script(machine / "bin" / "nvcc", f"print({NVCC!r})\n")


def test_a_complete_machine(examine, machine):
    smi(machine / "bin")
    complete(machine)
    found, lines = examine()
    assert found["gpus"] == [
        {
            "number": 0,
            "name": "NVIDIA GeForce RTX 4090",
            "compute_capability": "8.9",
            "memory_mib": 24564,
        }
    ]
    assert LOADED or found["driver"] == "580.65.06"
    assert found["cuda"] == "13.0"
    assert (found["problem"], found["fix"]) == (None, None)
    nvcc = str(machine / "bin" / "nvcc")
    assert found["toolkit"] == {"version": "13.0", "path": nvcc, "problem": None, "fix": None}
    assert found["tensorrt"] == {"version": "11.4.0.106", "problem": None, "fix": None}
    assert found["pycuda"] == {"version": "2026.1", "problem": None, "fix": None}
    assert [row["name"] for row in found["decode"]] == ["h264_cuvid", "hevc_cuvid", "av1_cuvid"]
    assert [row["name"] for row in found["encode"]] == ["h264_nvenc", "hevc_nvenc", "av1_nvenc"]
    assert lines[0] == "GPU 0: NVIDIA GeForce RTX 4090, compute capability 8.9, 24564 MiB"
    assert lines[1] == f"driver {found['driver']}, for CUDA 13.0"
    assert lines[2:5] == ["CUDA toolkit 13.0", "TensorRT 11.4.0.106", "PyCUDA 2026.1"]


def test_tensorrt_is_what_auto_takes(doctor, machine):
    smi(machine / "bin")
    complete(machine)
    report, _ = doctor()
    assert report["engines"]["tensorrt"]["problem"] is None
    (row,) = report["engines"]["tensorrt"]["devices"]
    assert (row["device"], row["default"]) == ("0", "fp16")
    assert row["precisions"] == ["fp16", "fp32", "bf16"]
    assert report["auto"]["engine"] == "tensorrt"
    assert report["auto"]["precision"] == "fp16"
    assert report["auto"]["device"] == "GPU 0"


@pytest.mark.parametrize(("cuda", "devices"), [("'13.0'", ["0", "CPU"]), ("None", ["CPU"])])
def test_torch_uses_the_gpu_if_it_is_built_for_one(doctor, machine, cuda, devices):
    smi(machine / "bin")
    package(machine / "lib", "torch", init="", version=f"cuda: Optional[str] = {cuda}\n")
    found = doctor()[0]["engines"]["torch"]
    assert [row["device"] for row in found["devices"]] == devices
    assert found["problem"] is None


def test_without_tensorrt_auto_does_not_take_it(doctor, machine):
    smi(machine / "bin")
    report, _ = doctor()
    assert "TensorRT and PyCUDA" in report["engines"]["tensorrt"]["problem"]
    assert report["auto"]["engine"] == "openvino"
    assert report["auto"]["device"] == "CPU"


def test_several_gpus_and_whose_numbers_they_are(examine, machine):
    smi(machine / "bin", gpus=2)
    found, lines = examine(CUDA_DEVICE_ORDER="")
    assert [gpu["number"] for gpu in found["gpus"]] == [0, 1]
    assert lines[1] == "GPU 1: NVIDIA H100 80GB HBM3, compute capability 9.0, 81559 MiB"
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in lines[2]
    _, ordered = examine(CUDA_DEVICE_ORDER="PCI_BUS_ID")
    assert not any("CUDA_DEVICE_ORDER" in line for line in ordered)


def test_an_old_driver_does_not_know_the_compute_capability(examine, machine):
    smi(machine / "bin", without=["compute_cap"])
    found, lines = examine()
    assert found["gpus"][0]["compute_capability"] is None
    assert lines[0] == "GPU 0: NVIDIA GeForce RTX 4090, 24564 MiB"


@pytest.mark.parametrize(("cuda", "name"), [("12.6", "tensorrt-cu12"), ("13.0", "tensorrt-cu13")])
def test_nothing_is_installed(examine, machine, cuda, name):
    smi(machine / "bin", cuda=cuda)
    found, lines = examine()
    assert found["tensorrt"]["version"] is None
    assert "No module named 'tensorrt'" in found["tensorrt"]["problem"]
    assert found["tensorrt"]["fix"] == f"pip install {name}"
    if Path("/usr/local/cuda/bin/nvcc").exists():
        assert found["toolkit"]["problem"] == "nvcc is not in PATH"
        assert found["toolkit"]["fix"] == "export PATH=/usr/local/cuda/bin:$PATH"
    else:
        package = f"cuda-toolkit-{cuda.replace('.', '-')}"
        assert found["toolkit"]["problem"] == "nvcc is not found"
        assert f"sudo apt-get install {package} " in found["toolkit"]["fix"]
    assert "No module named 'pycuda'" in found["pycuda"]["problem"]
    assert found["pycuda"]["fix"].startswith(found["toolkit"]["fix"])
    assert found["pycuda"]["fix"].endswith("pip install pycuda")
    for key in ("toolkit", "tensorrt", "pycuda"):
        assert any(
            found[key]["problem"] in line and f"; fix: {found[key]['fix']}" in line
            for line in lines
        )


def test_the_toolkit_is_there_but_not_in_path(examine, machine):
    smi(machine / "bin")
    complete(machine)
    (machine / "cuda" / "bin").mkdir(parents=True)
    (machine / "bin" / "nvcc").rename(machine / "cuda" / "bin" / "nvcc")
    found, _ = examine(CUDA_ROOT=machine / "cuda")
    assert found["toolkit"]["version"] == "13.0"
    assert found["toolkit"]["problem"] == "nvcc is not in PATH"
    assert found["toolkit"]["fix"] == f"export PATH={machine / 'cuda' / 'bin'}:$PATH"


def test_type_stubs_are_not_tensorrt(examine, machine):
    smi(machine / "bin")
    (machine / "lib" / "tensorrt").mkdir()
    (machine / "lib" / "tensorrt" / "tensorrt.pyi").touch()
    found, lines = examine()
    assert found["tensorrt"]["version"] is None
    assert "type stubs" in found["tensorrt"]["problem"]
    assert str(machine / "lib" / "tensorrt") in found["tensorrt"]["problem"]
    assert found["tensorrt"]["fix"] == "pip install tensorrt-cu13"
    assert any(line.startswith("TensorRT: not installed") for line in lines)


def test_tensorrt_without_its_libraries(examine, machine):
    smi(machine / "bin")
    package(machine / "lib", "tensorrt", init=f"raise ImportError({MISSING!r})\n")
    found, lines = examine()
    assert found["tensorrt"]["problem"] == f"cannot be imported: {MISSING}"
    assert "--force-reinstall" in found["tensorrt"]["fix"]
    assert any(MISSING in line for line in lines)


def test_tensorrt_too_old(examine, machine):
    smi(machine / "bin", cuda="12.2")
    package(machine / "lib", "tensorrt", init='__version__ = "8.5.3.1"\n')
    found, _ = examine()
    assert found["tensorrt"]["version"] == "8.5.3.1"
    assert "8.5 is too old" in found["tensorrt"]["problem"]
    assert found["tensorrt"]["fix"] == "pip install --upgrade tensorrt-cu12"


def test_an_import_that_ends_the_process(examine, machine):
    smi(machine / "bin")
    package(machine / "lib", "tensorrt", init="import os\nos.abort()\n")
    found, _ = examine()
    assert "ends Python with code" in found["tensorrt"]["problem"]


def test_pycuda_without_a_usable_driver(examine, machine):
    smi(machine / "bin")
    complete(machine)
    text = "def init():\n    raise RuntimeError('cuInit failed: no CUDA-capable device')\n"
    (machine / "lib" / "pycuda" / "driver.py").write_text(text)
    found, _ = examine()
    assert "cuInit failed: no CUDA-capable device" in found["pycuda"]["problem"]


def test_the_drivers_video_libraries_are_named(examine, machine):
    if LOADED:
        pytest.skip("this machine has the real ones")
    smi(machine / "bin")
    found, lines = examine()
    for rows, library in ((found["decode"], "libnvcuvid"), (found["encode"], "libnvidia-encode")):
        for row in rows:
            assert library in row["problem"]
            assert "libnvidia-" in row["fix"] or "NVIDIA_DRIVER_CAPABILITIES" in row["fix"]
    # One line for what has one cause.
    assert any(line.startswith("h264_cuvid, hevc_cuvid, av1_cuvid: ") for line in lines)


def test_a_driver_that_does_not_answer(examine, machine):
    if LOADED:
        pytest.skip("this machine has a real driver")
    script(machine / "bin" / "nvidia-smi", f"print({FAILED!r})\nsys.exit(9)\n")
    found, lines = examine()
    assert found["gpus"] == []
    assert found["driver"] is None
    assert found["cuda"] is None
    assert "couldn't communicate with the NVIDIA driver" in found["problem"]
    assert found["fix"]
    assert lines[0] == f"{found['problem']}; fix: {found['fix']}"


def test_a_driver_without_a_gpu(examine, machine):
    smi(machine / "bin", gpus=0)
    found, _ = examine()
    assert found["gpus"] == []
    assert "shows no GPU" in found["problem"]


def test_nothing_of_nvidia_is_one_line(examine):
    if LOADED:
        pytest.skip("this machine has a driver")
    found, lines = examine()
    assert found["gpus"] == found["decode"] == found["encode"] == []
    assert found["toolkit"] is found["tensorrt"] is found["pycuda"] is None
    assert len(lines) == 1
    assert "nvidia-smi finds none" in lines[0]
