"""What tests make: runs on disk, notebooks, copies, and the names of the audit's requirements."""

import json
import shutil

from conftest import REPO

from model import build
from s9 import records
from s9.data.sources import load
from s9.records import Epoch, Run
from s9.settings import Settings
from tools.evidence import scheduled_rate


class Rule:
    """The requirements as the audit names them."""

    STRUCTURE = "C1 C2 C3 C4 O, three convolutions a block"
    SHRINKING = "third convolution shrinks the map"
    MAX_POOLING = "no max-pooling"
    VIEW = "receptive field > 44"
    SEPARABLE = "depthwise separable convolution"
    DILATED = "dilated convolution"
    GLOBAL_AVERAGE = "global average pooling"
    FLIP = "HorizontalFlip"
    SHIFT_SCALE_ROTATE = "ShiftScaleRotate"
    COARSE_DROPOUT = "CoarseDropout, one 16x16 hole of the mean"
    ACCURACY = "test accuracy >= 85%, last epoch"
    TESTED = "a test after every epoch"
    RECORDS = "log, history and settings agree"
    PARAMETERS = "fewer than 200,000 parameters"
    WEIGHTS = "the run's weights are this network's"
    MODULAR = "modular code"


NETWORK_CHECKS = {
    *(Rule.STRUCTURE, Rule.SHRINKING, Rule.MAX_POOLING, Rule.VIEW, Rule.SEPARABLE, Rule.DILATED),
    *(Rule.GLOBAL_AVERAGE, Rule.PARAMETERS),
}

FACTS = {
    "data": {"fingerprint": "0123", "train": 50_000, "test": 10_000},
    "device": "a CPU",
    "threads": 2,
    "precision": "float32",
    "python": "3.12.0",
    "versions": {"torch": "2.9.0"},
    "commit": "abc",
}


def log_of(history, settings=None, images=10_000, batches=391):
    """The log of a run with this history."""
    name = "Validation" if settings and settings.validation else "Test"
    return "".join(
        f"Epoch {row.epoch}\n"
        f"Train: Loss=1.2345 Batch_id={batches - 1} Accuracy={row.train_accuracy:.2f}: 100%| [00:09<00:00]\n"
        f"{name} set: Average loss: {row.test_loss:.4f}, "
        f"Accuracy: {row.test_accuracy * images / 100:.0f}/{images} ({row.test_accuracy:.2f}%)\n\n"
        for row in history
    )


def make_run(
    folder, network=None, accuracies=(70.0, 84.0, 86.5), log=None, facts=FACTS, loss=0.8, **settings
):
    """Writes a run whose test accuracies are these, epoch by epoch; senseless ones too."""
    settings = Settings(**{"epochs": len(accuracies)} | settings)
    if settings.dataset == "digits":
        known = {key: value for key, value in load("digits").facts().items() if key not in facts["data"]}
        facts = {**facts, "data": facts["data"] | known}
    batches = -(-50_000 // settings.batch_size)
    history = [
        Epoch(n, round(scheduled_rate(settings, batches, n), 6), 1.0, 60.0, loss, accuracy, 9.0)
        for n, accuracy in enumerate(accuracies, 1)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    log = log_of(history, settings, batches=batches) if log is None else log
    run = Run(folder, settings, facts, history, log)
    records.write(run, network or build(settings.model))
    return run


def copy_repository(folder, *more):
    """Copies the code, and more files and folders of the repository; returns the folder."""
    folder.mkdir(exist_ok=True)
    for path in [*REPO.glob("*.py"), *(REPO / name for name in ("s9", "tools", *more))]:
        if path.is_dir():
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, folder)
    return folder


def make_notebook(path, *cells):
    """Writes a notebook of code cells."""
    path.write_text(
        json.dumps({"cells": [{"cell_type": "code", "source": cell} for cell in cells]}), encoding="utf-8"
    )
    return path
