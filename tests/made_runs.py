"""What tests make: runs on disk, notebooks, and the names of the audit's requirements."""

import json

from model import build
from s9 import records
from s9.records import Epoch, Run
from s9.settings import Settings

STRUCTURE = "C1 C2 C3 C4 O, three convolutions a block"
SHRINKING = "a block shrinks in its third convolution, by stride 2 or dilation"
MAX_POOLING = "no max-pooling"
VIEW = "receptive field > 44"
SEPARABLE = "a depthwise separable convolution"
DILATED = "a dilated convolution"
GLOBAL_AVERAGE = "global average pooling"
FLIP = "HorizontalFlip"
SHIFT_SCALE_ROTATE = "ShiftScaleRotate"
COARSE_DROPOUT = "CoarseDropout, one 16x16 hole, filled with the mean"
ACCURACY = "test accuracy >= 85%, last epoch"
TESTED = "a test after every epoch"
PARAMETERS = "fewer than 200,000 parameters"
WEIGHTS = "the run's weights are this network's"
MODULAR = "modular code"

NETWORK_CHECKS = {STRUCTURE, SHRINKING, MAX_POOLING, VIEW, SEPARABLE, DILATED, GLOBAL_AVERAGE, PARAMETERS}


FACTS = {
    "data": {"fingerprint": "0123", "train": 50_000, "test": 10_000},
    "device": "a CPU",
    "threads": 2,
    "precision": "float32",
    "python": "3.12.0",
    "versions": {"torch": "2.9.0"},
    "commit": "abc",
}


def log_of(history):
    """The log of a run with this history."""
    return "".join(
        f"Epoch {row.epoch}\n"
        f"Train: Loss=1.2345 Batch_id=390 Accuracy={row.train_accuracy:.2f}: 100%|██| 391/391 [00:09<00:00]\n"
        f"Test set: Average loss: {row.test_loss:.4f}, Accuracy: 1/1 ({row.test_accuracy:.2f}%)\n\n"
        for row in history
    )


def make_run(folder, network=None, accuracies=(70.0, 84.0, 86.5), log=None, facts=FACTS, **settings):
    """Writes a run whose test accuracies are these, epoch by epoch; senseless ones too."""
    history = [Epoch(n, 0.1, 1.0, 60.0, 0.8, accuracy, 9.0) for n, accuracy in enumerate(accuracies, 1)]
    settings = Settings(**{"epochs": len(history)} | settings)
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder, settings, facts, history, log_of(history) if log is None else log)
    records.write(run, network or build(settings.model))
    return run


def make_notebook(path, *cells):
    """Writes a notebook of code cells."""
    path.write_text(
        json.dumps({"cells": [{"cell_type": "code", "source": cell} for cell in cells]}), encoding="utf-8"
    )
    return path
