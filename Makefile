# make run     the whole assignment: S9.ipynb from top to bottom, into a folder of its own under runs/
# make test    lint, format, types and all tests, offline
# make gpu     the tests that need a CUDA device, and the benchmark there
# make notebook    strips S9.ipynb of what a runner wrote into its metadata
# make vulnerabilities    fails if an installed package has a known vulnerability; needs the internet
#
# All make .venv first if it is missing. Settings of make run, all optional:
#   EPOCHS=24   DATASET=auto|cifar10|digits   DATA_DIR=a folder that holds CIFAR-10   RUN_DIR=where to

PYTHON ?= python3
RUN_DIR := $(or $(RUN_DIR),runs/$(shell date +%Y-%m-%d-%H%M%S))
BIN := .venv/bin
# Of an executed notebook's metadata, only what a reader sees stays.
STRIP := $(BIN)/nbstripout --keep-output --keep-count --keep-id --keep-metadata-keys cell.metadata.scrolled \
	--extra-keys "metadata.papermill cell.metadata.papermill cell.metadata.tags cell.metadata.execution"

export EPOCHS DATASET DATA_DIR RUN_DIR

.PHONY: run test gpu notebook vulnerabilities
.DELETE_ON_ERROR:

run: .venv/installed
	@mkdir -p "$(RUN_DIR)"
	$(BIN)/papermill S9.ipynb "$(RUN_DIR)/S9.ipynb" --cwd . --stdout-file - --stderr-file - --no-progress-bar
	@# Text in one piece, and without the runner's metadata: small enough to commit as S9.ipynb.
	@$(BIN)/jupyter nbconvert --log-level=ERROR --to notebook --inplace "$(RUN_DIR)/S9.ipynb" \
		--CoalesceStreamsPreprocessor.enabled=True
	@$(STRIP) "$(RUN_DIR)/S9.ipynb"
	@echo "The executed notebook, the log, the weights and the figures are in $(RUN_DIR)"

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --dist worksteal --ignore tests/repo/test_browser.py
	@# The browser's tests have time limits: they run alone, when the others are done.
	$(BIN)/python -m pytest tests/repo/test_browser.py

gpu: .venv/installed
	$(BIN)/python -m pytest -q tests/gpu
	$(BIN)/python -m tools.benchmark

notebook: .venv/installed
	$(STRIP) S9.ipynb

vulnerabilities: .venv/installed
	$(BIN)/pip-audit

.venv/installed: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt -r requirements-dev.txt
	@touch $@
