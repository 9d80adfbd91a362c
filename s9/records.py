"""What a run leaves behind: its settings, log, history and weights, in one folder.

settings.json         Settings, and the facts of the run: data, device, precision, versions, commit
history.csv           one row an epoch (Epoch)
log.txt               the log as it was printed
weights.safetensors   the network after the last epoch, float32, and in its metadata the name of its class
checkpoint*.pt        all that a resumed run needs (see checkpoints.py); no evidence, git ignores them
"""

import csv
import io
import json
import math
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import nn

from s9 import files
from s9.errors import UserError
from s9.settings import Settings

SETTINGS, HISTORY, LOG, WEIGHTS, CHECKPOINT = (
    "settings.json",
    "history.csv",
    "log.txt",
    "weights.safetensors",
    "checkpoint.pt",
)
DAMAGED = "git restore it, or train again"
PACKAGES = ("torch", "torchvision", "albumentations", "opencv-python-headless", "numpy", "accelerate")


class Epoch(NamedTuple):
    """A row of the history. Losses are plain cross-entropies, nats an image; accuracies are percentages.

    Train figures are taken while the network learns, on augmented images; test figures after the epoch.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float


PLACES = (0, 6, 4, 2, 4, 2, 1)
"""Decimals of each field of an Epoch that are kept."""


class Run(NamedTuple):
    """A run folder, read."""

    folder: Path
    settings: Settings
    facts: dict
    history: list[Epoch]
    log: str


def leading_run(results: Path) -> Path:
    """The run that the repo leads with: of the most accurate network to hand in that is trained."""
    best = results / "best"
    return best if (best / WEIGHTS).exists() else results / "reference"


def free_folder(settings: Settings, parent: Path = Path("runs")) -> Path:
    """The first of runs/<model>-<dataset>-1, -2, ... that does not exist yet."""
    number = 1
    while (folder := parent / f"{settings.model}-{settings.dataset}-{number}").exists():
        number += 1
    return folder


def create_run(folder: Path, settings: Settings, resume: bool) -> None:
    """Makes sure that `folder` can be written and that no other run's results are in it.

    Raises UserError if it cannot be written, or holds a run and `resume` is False or the settings differ.
    """
    files.ensure_writable(folder / WEIGHTS, WEIGHTS)
    if not resume and ((folder / SETTINGS).exists() or any(folder.glob("checkpoint*.pt"))):
        raise UserError(f"{folder} already holds a run: name another folder, or resume this one (--resume)")
    if (folder / SETTINGS).exists():
        other = asdict(_read_settings(folder)[0])
        unlike = [
            f"{key} {other[key]} there, {value} here"
            for key, value in asdict(settings).items()
            if other[key] != value
        ]
        if unlike:
            raise UserError(
                f"{folder} holds a run of other settings ({'; '.join(unlike)}): name another folder"
            )
    for left_behind in folder.glob(".*-tmp"):  # by a process that was killed while it wrote
        left_behind.unlink(missing_ok=True)


def collect_facts(data_facts: dict, device: torch.device, precision: str, workers: int) -> dict:
    """What a reader must know beside the settings to judge or repeat the run."""
    return {
        "data": data_facts,
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "workers": workers,
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
        "commit": _commit(),
        "started": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def hardware_in_words(facts: dict) -> str:
    """What a run is computed on, of its facts: device, precision, workers."""
    workers = facts["workers"]
    number = "no" if workers == 0 else workers
    return f"{facts['device']}, {facts['precision']}, {number} worker{'s' if workers != 1 else ''}"


SAME_HARDWARE_AND_CODE = ("device", "threads", "precision", "python", "versions", "commit")
"""Facts whose change makes a resumed run another than one that never stopped, if only in the rounding."""


def continued(before: dict, now: dict, epoch: int) -> dict:
    """The facts of a run that goes on in `epoch`: its first ones, and under "resumed" what changed since.

    Raises UserError if it would go on with other data.
    """
    if before["data"] != now["data"]:
        raise UserError(
            f"the run began with other data (fingerprint {before['data']['fingerprint']}, "
            f"here {now['data']['fingerprint']}): name the same source"
        )
    resumed = before.get("resumed", [])
    latest = before | {key: value for stretch in resumed for key, value in stretch.items()}
    changed = {key: now[key] for key in SAME_HARDWARE_AND_CODE if now[key] != latest[key]}
    if changed:
        resumed = [*resumed, {"epoch": epoch, **changed, "started": now["started"]}]
    return before | ({"resumed": resumed} if resumed else {})


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"Apple GPU ({platform.machine()})"
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _commit() -> str | None:
    """The commit of the code, marked -dirty if it was changed since; None outside a git repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        answer = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, encoding="utf-8", check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def write(run: Run, network: nn.Module) -> None:
    """Writes the evidence of a run, each file whole or not at all."""
    record = {"settings": asdict(run.settings), **run.facts}
    files.replace(run.folder / SETTINGS, (json.dumps(record, indent=2) + "\n").encode())
    files.replace(run.folder / HISTORY, format_history(run.history).encode())
    files.replace(run.folder / LOG, run.log.encode())
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    # Two networks may have weights of the same names and shapes, and yet compute different things.
    metadata = {"network": type(network).__name__}
    files.replace(run.folder / WEIGHTS, safetensors.torch.save(weights, metadata))


def rounded(row: Epoch) -> Epoch:
    """A row as the history keeps it, so that what is drawn from a run and from its records is the same."""
    return Epoch(*(round(value, digits or None) for value, digits in zip(row, PLACES, strict=True)))


def format_history(history: Sequence[Epoch]) -> str:
    """The history as CSV text, one row an epoch, a header above."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Epoch._fields)
    for row in history:
        writer.writerow([f"{value:.{digits}f}" for value, digits in zip(row, PLACES, strict=True)])
    return text.getvalue()


def read_history(path: Path) -> list[Epoch]:
    """The rows of a history.csv. Raises UserError if it is missing or not as format_history writes them."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        if tuple(header) != Epoch._fields:
            raise ValueError(f"its columns are {header}")
        history = [Epoch(int(row[0]), *map(float, row[1:])) for row in rows]
        if not history or [row.epoch for row in history] != list(range(1, len(history) + 1)):
            raise ValueError("its epochs do not count up from 1")
        if not all(0 <= value < math.inf for row in history for value in row):
            raise ValueError("it holds a number below 0, or none")
        if max(max(row.train_accuracy, row.test_accuracy) for row in history) > 100:
            raise ValueError("it holds an accuracy above 100%")
        if list(csv.reader(io.StringIO(format_history(history)))) != [header, *rows]:
            raise ValueError("its numbers are not written as a run writes them")
        return history
    except (OSError, ValueError, TypeError, IndexError, csv.Error) as error:
        raise UserError(f"{path} is no history of a run ({error}): {DAMAGED}") from error


def _read_settings(folder: Path) -> tuple[Settings, dict]:
    path = folder / SETTINGS
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in fields(Settings)}
        settings = facts.pop("settings")
        if set(settings) != known:
            raise ValueError(f"it must name {', '.join(sorted(known))}")
        return Settings(**settings), facts
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is not the record of a run ({error}): name the folder of one") from error


def read(folder: Path) -> Run:
    """The evidence of a run, without its weights. Raises UserError if a part is missing or damaged."""
    settings, facts = _read_settings(folder)
    try:
        log = (folder / LOG).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{folder / LOG} cannot be read ({error}): {DAMAGED}") from error
    return Run(folder, settings, facts, read_history(folder / HISTORY), log)


def load_weights(folder: Path, network: nn.Module) -> None:
    """Loads a run's weights into the network that they belong to.

    Raises UserError if the file is missing or damaged, or belongs to another network; the network then keeps
    its weights.
    """
    path = folder / WEIGHTS
    try:
        with safetensors.safe_open(path, "pt") as file:
            named = (file.metadata() or {}).get("network", "")
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dictionary.
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(f"{path} cannot be read as weights ({error}): {DAMAGED}") from error
    needed = type(network).__name__
    if named != needed:
        other = named if named.isidentifier() else "a network without a name"
        raise UserError(f"{path} holds the weights of {other}, not of {needed}: name a run of {needed}")
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    if {name: tensor.shape for name, tensor in weights.items()} != expected:
        raise UserError(f"{path} holds the weights of another {needed} than the one here: {DAMAGED}")
    network.load_state_dict(weights)
