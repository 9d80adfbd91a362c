"""Checksums of the evidence, and logs held against histories."""

import hashlib
import shutil
import subprocess

import pytest
from conftest import REPO
from made_runs import make_run

from s9 import records
from s9.errors import UserError
from tools import evidence


@pytest.fixture
def root(tmp_path):
    """A small repository with a run, pictures, a notebook and their checksums."""
    make_run(tmp_path / "results" / "best" / "seed-1")
    (tmp_path / "Images").mkdir()
    for name in (
        "Images/b.png",
        "Images/a.png",
        "Images/notes.txt",
        "S9.ipynb",
        "results/public.csv",
        "README.md",
    ):
        (tmp_path / name).write_text(name, encoding="utf-8")
    make_run(tmp_path / "results" / "unfinished" / "best")
    for name in ("checkpoint.pt", "checkpoint-previous.pt"):
        (tmp_path / "results" / "best" / name).write_text("not evidence", encoding="utf-8")
    (tmp_path / "results" / ".DS_Store").write_text("not evidence", encoding="utf-8")
    evidence.write_checksums(tmp_path)
    return tmp_path


def test_all_evidence_is_listed_and_nothing_else(root):
    lines = (root / evidence.SUMS).read_text(encoding="utf-8").splitlines()
    assert [line[66:] for line in lines] == [
        "Images/a.png",
        "Images/b.png",
        "S9.ipynb",
        "results/best/seed-1/history.csv",
        "results/best/seed-1/log.txt",
        "results/best/seed-1/settings.json",
        "results/best/seed-1/weights.safetensors",
        "results/public.csv",
    ]
    assert lines[0] == f"{hashlib.sha256(b'Images/a.png').hexdigest()}  Images/a.png"
    assert evidence.changed_files(root) == []
    assert evidence.run_folders(root) == [root / "results" / "best" / "seed-1"]


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs the program sha256sum")
def test_the_usual_program_reads_the_file(root):
    command = ["sha256sum", "--check", "--strict", evidence.SUMS]
    assert subprocess.run(command, cwd=root, capture_output=True).returncode == 0
    (root / "S9.ipynb").write_text("changed", encoding="utf-8")
    told = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8")
    assert (told.returncode, "S9.ipynb: FAILED" in told.stdout) == (1, True)


def test_every_file_that_differs_is_missing_or_is_not_listed_is_named(root):
    (root / "Images" / "a.png").unlink()
    (root / "Images" / "b.png").write_text("Images/c.png", encoding="utf-8")
    (root / "results" / "new.csv").touch()
    assert evidence.changed_files(root) == [
        "Images/a.png is missing",
        "Images/b.png differs from results/SHA256SUMS",
        "results/new.csv is not listed in results/SHA256SUMS",
    ]
    evidence.write_checksums(root)
    assert evidence.changed_files(root) == []


@pytest.mark.parametrize("content", [None, b"no checksums\n", b"0123  S9.ipynb\n", b"\xff\xfe"])
def test_a_file_of_checksums_that_is_none_is_one_line(content, root):
    (root / evidence.SUMS).unlink()
    if content is not None:
        (root / evidence.SUMS).write_bytes(content)
    with pytest.raises(UserError, match=r"results/SHA256SUMS cannot be read .*: run python"):
        evidence.changed_files(root)


# Logs and histories


def test_the_committed_logs_and_histories_agree():
    folders = evidence.run_folders(REPO)
    assert {REPO / "results" / "reference", REPO / "results" / "fast"} <= set(folders)
    for folder in folders:
        run = records.read(folder)
        assert evidence.disagreements(run) == []
        assert len(evidence.LOGGED.findall(run.log)) == run.settings.epochs


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"train_accuracy": 60.01}, "train accuracy 60.00 in the log, 60.01 in the history"),
        ({"test_loss": 0.8001}, "test loss 0.8000 in the log, 0.8001 in the history"),
        ({"test_accuracy": 84.1}, "test accuracy 84.00 in the log, 84.10 in the history"),
    ],
)
def test_a_history_that_differs_from_its_log_is_named_with_its_epoch(change, line, tmp_path):
    run = make_run(tmp_path)
    assert evidence.disagreements(run) == []
    run.history[1] = run.history[1]._replace(**change)
    assert evidence.disagreements(run) == [f"{tmp_path}, epoch 2: {line}"]


def test_a_validation_run_and_a_diverged_one_agree_too(tmp_path):
    run = make_run(tmp_path)
    run.history[2] = run.history[2]._replace(test_loss=float("nan"))
    log = run.log.replace("Test set", "Validation set")
    start = log.index("Epoch 3")
    run = run._replace(log=log[:start] + log[start:].replace("0.8000", "nan"))
    assert evidence.disagreements(run) == []


def test_epochs_that_only_one_of_the_two_has_are_named(tmp_path):
    run = make_run(tmp_path)
    for history, line in (
        (run.history[:2], "where the history has its end, the log has epoch 3"),
        (run.history[1:], "where the history has epoch 2, the log has epoch 1"),
        (
            [*run.history, run.history[2]._replace(epoch=4)],
            "where the history has epoch 4, the log has its end",
        ),
    ):
        assert evidence.disagreements(run._replace(history=history)) == [f"{tmp_path}: {line}"]
    without = run._replace(log=run.log.replace("Accuracy=60.00", "Accuracy 60.00", 1))
    line = "where the history has epoch 1, the log has epoch 2"
    assert evidence.disagreements(without) == [f"{tmp_path}: {line}"]
