"""The pages' command of each network, started as a reader would: its first losses are those in the log.

S9_LONG=1 and the real CIFAR-10: some 20 minutes on one core.
"""

import contextlib
import os
import subprocess
import sys
import time

import pytest
from conftest import REPO, long_tests
from pages import commands, words_of

from model import NETWORKS
from s9 import records
from s9.errors import UserError
from tools import claims

EPOCHS = 2
TO_THE_BIT = {"data", *records.SAME_HARDWARE_AND_CODE} - {"commit"}
"""Where these facts are the same, so is the history; elsewhere the sums are rounded otherwise."""


def start_of(command, folder, data):
    """The first epochs' rows that a command leaves in a folder before it is stopped."""
    variables, (_, *arguments) = words_of(command)
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment = {**inherited, "CIFAR10_DIR": str(data), **variables}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    command = [sys.executable, *arguments, "--out", folder]
    process, history = subprocess.Popen(command, cwd=REPO, env=environment, **pipes), []
    try:
        while len(history) < EPOCHS:
            assert process.poll() is None, process.stderr.read()
            time.sleep(1)
            with contextlib.suppress(UserError):  # Not there yet.
                history = records.read_history(folder / records.HISTORY)
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 128 + 15
    return history[:EPOCHS]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_pages_command_begins_as_the_committed_run_did(name, cifar10_folder, tmp_path):
    if not long_tests():
        pytest.skip("trains for two epochs: set S9_LONG=1")
    committed = records.read(REPO / "results" / name)
    command = claims.command_line(committed)
    page = "README.md" if name == "best" else f"results/{name}/README.md"
    assert command in commands((REPO / page).read_text(encoding="utf-8"))
    history = start_of(command, tmp_path / "run", cifar10_folder)
    again = records.read(tmp_path / "run").facts
    tolerance = 0 if all(again[fact] == committed.facts[fact] for fact in TO_THE_BIT) else 0.03
    for row, was in zip(history, committed.history, strict=False):
        assert row.learning_rate == was.learning_rate
        assert row.train_loss == pytest.approx(was.train_loss, rel=tolerance)
        assert row.train_accuracy == pytest.approx(was.train_accuracy, rel=tolerance)
        assert tolerance or row[:-1] == was[:-1]
