"""The hand-in: the page, the pictures and the answers show the student's run, and nothing is pushed."""

import errno
import json
import shutil
import subprocess
import sys
import types
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import REPO
from made_runs import copy_repository, make_run

import assignment
from s9 import records
from s9.errors import UserError
from tools import handin, report

STUDENTS = REPO / "results" / "notebook"
"""A finished run with its pictures, in the place of a student's."""


@pytest.fixture
def fork(tmp_path, monkeypatch):
    """A copy of the pages and the evidence, committed, with a run of the student's under runs/."""
    names = ("results", "Images", "docs", "README.md", "S9.ipynb", ".gitignore")
    root = copy_repository(tmp_path / "S9", *names)
    shutil.rmtree(root / "results" / "handin", ignore_errors=True)
    shutil.copytree(STUDENTS, root / "runs" / "best-cifar10-1")
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    git = lambda *words: subprocess.run(["git", *words], cwd=root, check=True)  # noqa: E731
    git("init", "--quiet")
    git("remote", "add", "origin", "https://github.com/alice/S9.git")
    git("add", "--all")
    git(*identity, "commit", "--quiet", "--message", "test")
    monkeypatch.setattr(report, "REPO", root)
    monkeypatch.chdir(root)
    return root


def changed(root):
    command = ["git", "status", "--porcelain", "--untracked-files=all"]
    lines = subprocess.check_output(command, cwd=root, encoding="utf-8").splitlines()
    return {line[3:] for line in lines}


def test_the_handed_in_run_leads_the_page_and_the_authors_stay(fork, capsys):
    (fork / "runs" / "S9.ipynb").write_text("{}", encoding="utf-8")
    assert assignment.main(["handin", "--run", "runs/best-cifar10-1"]) == 0
    added = "git add README.md S9.ipynb Images docs hubconf.py results"
    assert f'{added}\ngit commit -m "My run"' in capsys.readouterr().out
    target = fork / "results" / "handin"
    assert records.leading_run(fork / "results") == target
    assert records.read(target).log == records.read(STUDENTS).log
    readme = (fork / "README.md").read_text(encoding="utf-8")
    last = records.read(STUDENTS).log.strip().split("\n\n")[-1]
    assert last in readme
    assert "[The full log](results/handin/README.md#training-log)" in readme
    assert records.read(STUDENTS).log.strip() in (target / "README.md").read_text(encoding="utf-8")
    for name in report.PICTURES:
        picture = (STUDENTS / f"{name}.png").read_bytes()
        assert (
            (target / f"{name}.png").read_bytes() == (fork / "Images" / f"{name}.png").read_bytes() == picture
        )
    assert records.read(STUDENTS).log.strip() in (target / "QnA.md").read_text(encoding="utf-8")
    assert (fork / "S9.ipynb").read_text(encoding="utf-8") == "{}"
    others = {name for name in changed(fork) if not name.startswith(("results/handin/", "Images/"))}
    assert others == {"README.md", "S9.ipynb"}
    assert report.refresh_readme(target, check=True) == 0


def test_a_run_must_be_named_and_one_in_the_root_leaves_the_notebook_there(fork, monkeypatch):
    with pytest.raises(SystemExit, match="2"):
        assignment.main(["handin"])
    assert changed(fork) == set()
    monkeypatch.setattr(report, "refresh_readme", lambda _: 0)
    handin.hand_in((fork / "runs" / "best-cifar10-1").rename(fork / "mine"))
    assert not any(name.startswith("S9") for name in changed(fork))


def test_what_cannot_be_handed_in_changes_nothing(fork):
    run, target = fork / "runs" / "best-cifar10-1", fork / "results" / "handin"
    damaged = fork / "results" / "fast" / "log.txt"
    whole = damaged.read_text(encoding="utf-8")
    damaged.write_text(whole.replace("Accuracy: 3082/", "Accuracy: 3083/"), encoding="utf-8")
    with pytest.raises(UserError, match=r"^results/fast, epoch 1: .*: restore the files"):
        handin.hand_in(run)
    assert changed(fork) == {"results/fast/log.txt"}
    damaged.write_text(whole, encoding="utf-8")
    handin.hand_in(run)
    (target / records.LOG).unlink()  # The last hand-in is replaced, damaged or not.
    handin.hand_in(run)

    seed = shutil.copytree(run, target / "seed-1")
    before = changed(fork)
    for folder in (run, seed):
        with pytest.raises(UserError, match=r"handin/seed-1 would go .*: move it elsewhere first$"):
            handin.hand_in(folder)
    assert changed(fork) == before
    assert (seed / records.LOG).read_bytes() == (run / records.LOG).read_bytes()


@pytest.mark.parametrize("missing", [records.SETTINGS, records.HISTORY, records.WEIGHTS])
def test_a_copy_that_fails_leaves_the_last_hand_in(fork, monkeypatch, missing):
    run, target = fork / "runs" / "best-cifar10-1", fork / "results" / "handin"
    handin.hand_in(run)
    copy = shutil.copy

    def full(source, folder):
        if source.name == missing:
            raise OSError(errno.ENOSPC, "No space left on device")
        copy(source, folder)

    monkeypatch.setattr(shutil, "copy", full)
    with pytest.raises(OSError, match="No space"):
        handin.hand_in(run)
    assert records.read(target).log == records.read(run).log
    monkeypatch.undo()
    monkeypatch.setattr(report, "REPO", fork)
    handin.hand_in(run)
    assert [path.name for path in (fork / "results").glob("*handin*")] == ["handin"]
    assert not list(fork.glob("*handin*"))


def make_checkpoint(folder):
    folder.mkdir()
    (folder / records.CHECKPOINT).touch()


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("best"), make_checkpoint])
def test_what_is_in_the_place_of_a_hand_in_is_not_lost(fork, make):
    make(fork / "results" / "handin")
    with pytest.raises(UserError, match=r"results/handin(/checkpoint\.pt)? would go with"):
        handin.hand_in(fork / "runs" / "best-cifar10-1")
    assert changed(fork) <= {"results/handin", "results/handin/checkpoint.pt"}


def test_outside_colab_a_line_says_how_or_why_not_and_nothing_changes(fork, tmp_path):
    unfinished = records.read(STUDENTS)
    unfinished = unfinished._replace(settings=replace(unfinished.settings, epochs=99))
    digits = make_run(tmp_path / "digits", dataset="digits")
    fast = make_run(tmp_path / "fast", model="fast")
    for run, words in ((digits, "trained on digits"), (fast, "has 494,368 parameters")):
        with pytest.raises(UserError):
            handin.hand_in(run.folder)
        assert f"This run cannot be handed in: {run.folder}" not in handin.next_steps(run).data
        assert words in handin.next_steps(run).data
    assert "of 99 epochs" in handin.next_steps(unfinished).data
    text = handin.next_steps(records.read(fork / "runs" / "best-cifar10-1")).data
    assert f"python assignment.py handin --run {fork / 'runs' / 'best-cifar10-1'}\ngit add" in text
    assert changed(fork) == set()


@pytest.mark.parametrize("given", [True, False])
def test_in_colab_the_run_is_handed_in_and_downloaded_as_one_archive(fork, monkeypatch, given):
    notebook = {"cells": [], "metadata": {"widgets": {}, "colab": {}}, "nbformat": 4, "nbformat_minor": 0}
    answer, downloaded = {"ipynb": notebook} if given else None, []
    fake = types.ModuleType("google.colab")
    fake._message = types.SimpleNamespace(blocking_request=lambda *_, **__: answer)
    fake.files = types.SimpleNamespace(download=downloaded.append)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", fake)
    folder = fork / "runs" / "best-cifar10-1"
    (fork / "runs" / "S9.ipynb").write_text("{}", encoding="utf-8")  # An older one of `make run`.
    text = handin.next_steps(records.read(folder)).data
    assert downloaded == [str(folder / "handin.zip")]
    with zipfile.ZipFile(folder / "handin.zip") as archive:
        names = set(archive.namelist())
        page = archive.read("README.md").decode()
    assert names == changed(fork) - (set() if given else {"S9.ipynb"})
    assert {"README.md", "results/handin/log.txt", "results/handin/weights.safetensors"} <= names
    assert records.read(STUDENTS).log.strip().split("\n\n")[-1] in page
    assert "https://github.com/alice/S9/upload" in text
    assert "google.com/github/alice/S9/blob/main" in page
    assert ("S9.ipynb" in names) == given
    assert ("Save a copy in GitHub" in text) != given
    if given:
        written = json.loads((fork / "S9.ipynb").read_text(encoding="utf-8"))
        assert written == notebook and "widgets" not in written["metadata"]


def test_a_folder_that_git_cannot_list_is_one_line(tmp_path):
    (tmp_path / ".git").touch()  # No repository, nor a part of one above it.
    with pytest.raises(UserError, match=r"git cannot list the files that changed in .*exit status 128"):
        handin.pack(tmp_path, tmp_path / "handin.zip")
    assert not (tmp_path / "handin.zip").exists()
