# Every target works from a fresh clone: what it needs, it installs into .venv.
PYTHON ?= python3
BIN := .venv/bin
# With a GPU its checks need the packages that use it, and these cannot share an environment with those that
# the rest is tested with: onnxruntime-gpu is the same module as onnxruntime.
GPU_VENV := $(if $(shell command -v nvidia-smi),.venv-gpu,.venv)

.PHONY: demo test check gpu-check readme clean browser

# The stamp is older than pyproject.toml when dependencies have changed.
.venv/stamp: EXTRAS := cpu,rtx,demo,streaming,hf,tensorboard,test,dev
.venv-gpu/stamp: EXTRAS := gpu,demo,test
.venv/stamp .venv-gpu/stamp: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade pip
	$(@D)/bin/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@

demo: .venv/stamp  ## the quickstart recipe: from pretrained weights to an INT8 engine and a report
	$(BIN)/optkit run recipes/quickstart.yaml

# One process, in the order of the files: tests of a file share what was costly to make.
test: .venv/stamp browser  ## the whole test suite
	$(BIN)/python -m pytest

# A report is opened in it; where it cannot be had, these tests are skipped and say so.
browser:
	@command -v chromium >/dev/null || ! command -v apt-get >/dev/null || \
		{ echo "installing chromium, in which the tests open a report" >&3; apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium; } 3>&1 >/dev/null 2>&1 || \
		echo "chromium could not be installed: the tests that open a report in it are skipped"

check: .venv/stamp  ## style, types, and the generated parts of the README
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m optkit.cli._reference --check README.md

gpu-check: $(GPU_VENV)/stamp  ## everything that needs a CUDA device; without one, says why each is skipped
	$(GPU_VENV)/bin/python -m pytest -m gpu -rs

readme: .venv/stamp  ## write the generated parts of the README anew
	$(BIN)/python -m optkit.cli._reference README.md

clean:  ## remove the environment and all runs
	rm -rf .venv .venv-gpu runs
