# Every target works from a fresh clone: what it needs, it installs into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check gpu-check readme clean

# The stamp is older than pyproject.toml when dependencies have changed.
.venv/stamp: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[cpu,rtx,demo,test,dev]'
	touch .venv/stamp

demo: .venv/stamp  ## the quickstart recipe: from pretrained weights to an INT8 engine and a report
	$(BIN)/optkit run recipes/quickstart.yaml

test: .venv/stamp  ## the whole test suite
	$(BIN)/python -m pytest

check: .venv/stamp  ## style, types, and the generated parts of the README
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m optkit.cli._reference --check README.md

gpu-check: .venv/stamp  ## everything that needs a CUDA device; without one, says why each is skipped
	$(BIN)/python -m pytest -m gpu -rs

readme: .venv/stamp  ## write the generated parts of the README anew
	$(BIN)/python -m optkit.cli._reference README.md

clean:  ## remove the environment and all runs
	rm -rf .venv runs
