# make run     the whole assignment: S9.ipynb from top to bottom, into a folder of its own under runs/
# make test    lint, format and all tests, offline
# make vulnerabilities    fails if an installed package has a known one; needs the internet
#
# All make .venv first if it is missing. Settings of make run, all optional:
#   EPOCHS=24   DATASET=auto|cifar10|digits   DATA_DIR=a folder that holds CIFAR-10   RUN_DIR=where to

PYTHON ?= python3
RUN_DIR ?= runs/$(shell date +%Y-%m-%d-%H%M%S)
BIN := .venv/bin

export EPOCHS DATASET DATA_DIR RUN_DIR

.PHONY: run test vulnerabilities
.DELETE_ON_ERROR:

run: .venv/installed
	@mkdir -p "$(RUN_DIR)"
	$(BIN)/papermill S9.ipynb "$(RUN_DIR)/S9.ipynb" --cwd . --stdout-file - --stderr-file - --no-progress-bar
	@# Text in one piece, and without the runner's notes: small enough to commit as S9.ipynb.
	@$(BIN)/jupyter nbconvert --log-level=ERROR --to notebook --inplace "$(RUN_DIR)/S9.ipynb" \
		--CoalesceStreamsPreprocessor.enabled=True
	@$(BIN)/nbstripout "$(RUN_DIR)/S9.ipynb" --keep-output --keep-count --keep-id \
		--keep-metadata-keys cell.metadata.scrolled \
		--extra-keys "metadata.papermill cell.metadata.papermill cell.metadata.tags cell.metadata.execution"
	@echo "The executed notebook, the log, the weights and the figures are in $(RUN_DIR)"

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n auto --dist worksteal --ignore tests/repo/test_browser.py
	@# A browser waits for no one: alone, when the others are done.
	$(BIN)/python -m pytest tests/repo/test_browser.py

vulnerabilities: .venv/installed
	$(BIN)/python tests/supply.py

.venv/installed: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt -r requirements-dev.txt
	@touch $@
