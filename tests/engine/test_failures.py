import errno
import itertools
import os
import shlex
import signal
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import albumentations as A
import psutil
import pytest
import torch
from small import SETTINGS, SmallNet, evidence, fit_small, small_data, small_is

import train
import utils
from s9 import records
from s9.engine.failures import delayed_signals, explain_failures
from s9.errors import RunError, UserError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    fit_small(folder)
    return evidence(folder)


def spoilt(batch, fault):
    """Makes a SmallNet that applies `fault` to its logits in one training batch of the run, from 0."""

    def make():
        network, seen = SmallNet(), itertools.count()
        spoil = lambda layer, _, logits: fault(logits) if layer.training and next(seen) == batch else None  # noqa: E731
        network.register_forward_hook(spoil)
        return network

    return make


class EndlessGradient(torch.autograd.Function):
    @staticmethod
    def forward(context, logits):
        return logits.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * float("inf")


@pytest.mark.parametrize(
    ("batch", "fault", "words"),
    [
        (0, lambda logits: logits * float("nan"), "the loss is nan"),
        (4, lambda logits: logits * 3e38 * 3e38, "the loss is (nan|inf)"),
        (8, EndlessGradient.apply, "the gradient's norm (inf|nan)"),
    ],
    ids=["nan", "infinite", "gradient"],
)
def test_what_is_not_finite_stops_the_run_and_is_never_kept(tmp_path, whole, batch, fault, words):
    folder = tmp_path / "run"
    with pytest.raises(RunError, match=words) as raised:
        fit_small(folder, make=spoilt(batch, fault))
    assert str(raised.value).startswith(f"epoch {batch // 3 + 1}, batch {batch % 3}: ")
    assert "lower --learning-rate (now 0.05)" in str(raised.value)
    assert (folder / records.SETTINGS).exists() == (batch >= 3)
    fit_small(folder, resume=True)
    assert evidence(folder) == whole


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA"), r"out of memory: use a smaller --batch-size \(now 32\)"),
        (MemoryError(), "out of memory: use a smaller"),
        (
            OSError(errno.EMFILE, "Too many open files"),
            "worker processes cannot be started .*fewer --workers",
        ),
        (RuntimeError("[gloo/tcp] Connection closed by peer [::1]"), "another process of this job ended"),
    ],
)
def test_what_befalls_an_epoch_is_told_in_one_line(error, words):
    with (
        pytest.raises(RunError, match=f"^epoch 7: {words}.* is kept in runs/x, .*--out runs/x$") as raised,
        explain_failures(7, Path("runs/x"), SETTINGS),
    ):
        raise error
    assert "\n" not in str(raised.value)
    with pytest.raises(RuntimeError, match="cannot be multiplied"), explain_failures(1, Path("x"), SETTINGS):
        torch.ones(2, 3) @ torch.ones(2, 3)  # An error of the code itself.


class Crop(A.ImageOnlyTransform):
    """Takes a row from a tenth of the images."""

    def apply(self, image, **_):
        return image[:-1]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mistake_in_the_transform_is_not_a_lack_of_memory(tmp_path, workers):
    transform = A.Compose([Crop(p=0.1)])
    with pytest.raises(UserError, match="the transform must return uint8"):
        fit_small(tmp_path / "run", transform=transform, hardware={"workers": workers})


def test_a_real_lack_of_memory_is_told(tmp_path):
    with pytest.raises(RunError, match="epoch 2: out of memory"):
        fit_small(tmp_path / "run", make=spoilt(4, lambda logits: logits + torch.empty(2**60)[0]))


@pytest.mark.filterwarnings("ignore")
def test_a_worker_that_dies_does_not_hang_the_run(tmp_path, monkeypatch):
    children = psutil.Process().children
    others = children()

    def kill_worker(_):
        for child in set(children()) - set(others):
            child.kill()
        time.sleep(0.2)

    # Many small batches: the worker has not fetched them all when it dies.
    settings = replace(SETTINGS, batch_size=2)
    with pytest.raises(RunError, match=r"epoch 1: a worker process died: .*--workers"):
        fit_small(tmp_path / "run", settings, make=spoilt(1, kill_worker), hardware={"workers": 1})


@pytest.mark.parametrize("failing", range(2, 17, 2))
def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch, whole, failing):
    """A sync at the start, then five an epoch: the checkpoint and the four records."""
    calls, fsync = [], os.fsync

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) >= failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return fsync(descriptor)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=r"cannot write to .*run after epoch \d \(No space left"):
            fit_small(folder)
    fit_small(folder, resume=True)
    assert evidence(folder) == whole


@pytest.mark.parametrize(
    ("place", "error", "words"),
    [
        ((records, "_commit"), KeyboardInterrupt(), ""),
        ((os, "fsync"), OSError(errno.ENOSPC, "No space left"), "free disk space or restore the folder"),
    ],
    ids=["interrupted", "full"],
)
def test_a_run_that_ends_before_its_first_checkpoint_gives_its_folder_back(
    tmp_path, monkeypatch, place, error, words
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, RunError)) as raised:
        patch.setattr(*place, Mock(side_effect=error))
        fit_small(folder)
    assert str(raised.value).endswith(words) and "--resume" not in str(raised.value)
    fit_small(folder)


def test_a_full_disk_at_the_start_of_a_resumed_run_is_one_line(tmp_path, monkeypatch):
    fit_small(tmp_path / "run")
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(RunError, match=r"cannot write to .*run after epoch \d \(No space left.* is intact"):
        fit_small(tmp_path / "run", resume=True)


def test_a_folder_that_a_killed_run_took_and_left_empty_is_one_line(tmp_path):
    (tmp_path / records.LOG).touch()
    with pytest.raises(
        UserError, match=r"choose another folder, or delete its log\.txt if no run is under way there$"
    ):
        fit_small(tmp_path)


def interrupting(number):
    return lambda logits: os.kill(os.getpid(), number)


OPTIONS = "--model small --dataset digits --epochs 3 --batch-size 32 --learning-rate 0.05 --precision float32"


@pytest.mark.parametrize(
    ("batch", "number"), [(0, signal.SIGTERM), (2, signal.SIGINT), (4, signal.SIGTERM), (7, signal.SIGINT)]
)
def test_an_interrupted_run_goes_on_at_the_batch_by_the_command_that_is_printed(
    tmp_path, monkeypatch, capsys, whole, batch, number
):
    folder, before, batches = tmp_path / "a run", signal.getsignal(number), []
    monkeypatch.setattr(train, "load", lambda *_: small_data())
    with small_is(spoilt(batch, interrupting(number))), pytest.raises(SystemExit) as ended:
        train.main([*OPTIONS.split(), "--out", str(folder)])
    assert ended.value.code == 128 + number
    assert signal.getsignal(number) == before
    line, command = capsys.readouterr().err.strip().splitlines()
    where = f"in epoch {batch // 3 + 1}" if batch != 2 else "after epoch 1"
    assert line.startswith(f"train.py: stopped {where} by {number.name}; the run is saved in {folder}: ")
    assert line.endswith(f"to continue it, pass --resume --out {folder}")
    assert command == f"python train.py {OPTIONS} --out '{folder}' --resume"
    with pytest.raises(UserError, match="already holds a run"):
        fit_small(folder)
    with small_is(spoilt(8 - batch, batches.append)):
        train.main(shlex.split(command)[2:])
    assert batches == []  # There is no such batch.
    assert evidence(folder) == whole
    fit_small(tmp_path / "last", make=spoilt(8, interrupting(number)))  # In its last batch, it is done.
    assert evidence(tmp_path / "last") == whole


def test_a_second_interrupt_ends_at_once():
    with pytest.raises(KeyboardInterrupt), delayed_signals() as received:
        os.kill(os.getpid(), signal.SIGINT)
        assert received == [signal.SIGINT]
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (RunError("epoch 2, batch 1: the loss is nan"), 1, "train.py: epoch 2, batch 1: the loss is nan\n"),
        (RunError("cannot write to a\nb"), 1, r"train.py: cannot write to a\nb" + "\n"),
        (KeyboardInterrupt(), 130, "\ntrain.py: stopped; to continue the run saved last, add --resume\n"),
    ],
)
def test_the_command_ends_with_a_line_and_a_code(monkeypatch, capsys, error, code, words):
    monkeypatch.setattr(utils, "fit", Mock(side_effect=error))
    with pytest.raises(SystemExit) as ended:
        train.main(["--dataset", "digits"])
    assert ended.value.code == code
    assert capsys.readouterr().err == words
