"""A network and data small enough to train in a blink, for tests of all that goes on around training."""

import re
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import utils
from model import NETWORKS
from s9.data.sources import Data
from s9.engine.hardware import Hardware, make_accelerator
from s9.engine.run import RunState
from s9.records import Run
from s9.settings import Settings

ON_CPU = Hardware("cpu", "float32", workers=0)
SETTINGS = Settings(model="small", dataset="digits", epochs=3, batch_size=32, learning_rate=0.05)


class SmallNet(nn.Module):
    """Four layers, one of them random in training, so that a test can tell whether the dice are kept."""

    def __init__(self, dropout=0.1, classes=10):
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(8, classes)

    def forward(self, images):
        features = self.dropout(F.relu(self.norm(self.convolution(images))))
        return self.classifier(features.mean((2, 3)))


def small_data():
    """80 images to learn from (three batches of 32, the last half full), 30 to test on."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (110, 32, 32, 3), dtype=np.uint8)
    labels = random.integers(0, 10, 110)
    return Data("digits", tuple("0123456789"), images[:80], labels[:80], images[80:], labels[80:])


def new_network(dropout=0.1):
    torch.manual_seed(1)
    return SmallNet(dropout=dropout)


def state_of(settings, network, both=((None,) * 100, ())):
    """What trains a network in float32, without records."""
    return RunState(
        Run(Path(), settings, {}, [], ""), network, both, make_accelerator("cpu", "float32"), False
    )


def small_is(make):
    """While entered, make() is the model "small"."""
    return patch.dict(NETWORKS, small=lambda classes: make())


def fit_small(folder, settings=SETTINGS, make=SmallNet, data=None, hardware=None, **options):
    """A run on the CPU in this process; (network, history). make(): the network in the place of SmallNet.

    hardware: what differs from ON_CPU.
    """
    options["hardware"] = ON_CPU._replace(**hardware or {})
    with small_is(make):
        trained = utils.fit(settings, data or small_data(), folder and Path(folder), **options)
    return trained.network, trained.history


def evidence(folder):
    """All that a run leaves behind, but for the seconds that it took."""
    folder = Path(folder)
    log = re.sub(r"\[.*?\]", "[]", (folder / "log.txt").read_text(encoding="utf-8"))
    rows = [
        line.rsplit(",", 1)[0] for line in (folder / "history.csv").read_text(encoding="utf-8").splitlines()
    ]
    return log, rows, (folder / "weights.safetensors").read_bytes()
