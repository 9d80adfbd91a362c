"""The records of a run: its settings, log, history and weights, in one folder.

settings.json         Settings, and the facts of the run: data, device, precision, versions, commit
history.csv           one row an epoch (Epoch)
log.txt               the log as it was printed
weights.safetensors   the network after the last epoch, float32, and in its metadata the name of its class
checkpoint*.pt        what a resumed run needs (see s9/engine/checkpoint.py); ignored by git
"""

import itertools
import json
import math
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn

from s9 import files
from s9.errors import UserError, how_to_resume
from s9.settings import Settings, from_record

SETTINGS, HISTORY, LOG = "settings.json", "history.csv", "log.txt"
WEIGHTS, CHECKPOINT = "weights.safetensors", "checkpoint.pt"
CHECKPOINTS = "checkpoint*.pt"  # the newest and the one before it
RUNS = Path("runs")
"""Where new runs go by default."""
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
"""Decimals of each field of an Epoch that history.csv keeps."""


class Run(NamedTuple):
    """The records of a run, as read from its folder or as collected so far."""

    folder: Path
    settings: Settings
    facts: dict
    history: list[Epoch]
    log: str

    @property
    def complete(self) -> bool:
        """Whether all epochs are done."""
        return len(self.history) == self.settings.epochs

    def summary(self) -> str:
        """One line: folder, network, data set, epochs, and the test accuracy of the last one."""
        what = f"{self.folder}: {self.settings.model} on {self.settings.dataset}"
        epochs = f"{len(self.history)} of {self.settings.epochs} epochs"
        line = f"{what}, {epochs}, test accuracy {self.history[-1].test_accuracy:.2f}%"
        return line if self.complete else f"{line}; {how_to_resume(self.folder)}"


def leading_run(results: Path) -> Path:
    """The run that README.md and the answers show: the one handed in, else `best`, else `reference`."""
    candidates = (results / name for name in ("handin", "best"))
    return next((folder for folder in candidates if (folder / WEIGHTS).exists()), results / "reference")


def create_run(settings: Settings, folder: Path | None = None, runs: Path = RUNS) -> Path:
    """Claims a folder for a new run, and returns it: `folder`, or the first free runs/<model>-<dataset>-N.

    Creating log.txt is one atomic step: of several starts at the same moment, each gets its own folder.
    given_back() undoes it.
    Raises UserError if `folder` already holds a run, or if nothing can be written there.
    """
    for number in itertools.count(1):
        candidate = folder or runs / f"{settings.model}-{settings.dataset}-{number}"
        if folder is None and os.path.lexists(candidate):
            continue
        files.ensure_writable(candidate / LOG, LOG)
        saved = any(candidate.glob(CHECKPOINTS)) or (candidate / SETTINGS).exists()
        if not saved:
            with suppress(FileExistsError):
                (candidate / LOG).touch(exist_ok=False)
                break
        if folder:
            unless = "" if saved else f", or delete its {LOG} if no run is under way there"
            raise UserError(f"{folder} already holds a run: choose another folder{unless}")
    return candidate


@contextmanager
def given_back(folder: Path) -> Iterator[None]:
    """Frees a claimed folder if the block fails before the first checkpoint: a run can then start there."""
    try:
        yield
    except BaseException:
        if not any(folder.glob(CHECKPOINTS)):
            with suppress(OSError):
                (folder / LOG).unlink()
        raise


def run_to_resume(settings: Settings, folder: Path | None = None, runs: Path = RUNS) -> Path:
    """The folder of the run to continue: `folder`, or the run in `runs` that was saved last.

    Raises UserError if there is nothing to resume, if the settings differ, or if it cannot be written.
    """
    folder = folder or last_saved(runs)
    if not any(folder.glob(CHECKPOINTS)):
        raise UserError(f"nothing to resume in {folder}: it holds no checkpoint; start a new run instead")
    if (folder / SETTINGS).exists():
        there, here = asdict(_read_settings(folder)[0]), asdict(settings)
        unlike = [f"{key} {there[key]} there, {here[key]} here" for key in here if there[key] != here[key]]
        if unlike:
            problem = f"cannot resume {folder}: other settings ({'; '.join(unlike)})"
            raise UserError(f"{problem}; restore them, or start a new run")
    files.ensure_writable(folder / WEIGHTS, WEIGHTS)
    for left_behind in folder.glob(".*-tmp"):  # by a process that was killed while it wrote
        if left_behind.is_file():
            left_behind.unlink(missing_ok=True)
    return folder


def last_saved(runs: Path = RUNS) -> Path:
    """The folder of the run in `runs` that was saved last. Raises UserError if there is none."""
    saved = [path for name in (CHECKPOINTS, SETTINGS) for path in Path(runs).glob(f"*/{name}")]
    if not saved:
        raise UserError(f"{runs} holds no run: train one first")
    return max(saved, key=lambda path: path.stat().st_mtime_ns).parent


def last_run(runs: Path = RUNS) -> Run:
    """The records of the run in `runs` that was saved last, finished or not.

    Raises UserError if there is none, or if it was stopped in its first epoch.
    """
    folder = last_saved(runs)
    if not (folder / SETTINGS).exists():
        raise UserError(f"{folder} has no finished epoch: {how_to_resume(folder)}")
    return read(folder)


def collect_facts(data_facts: dict, device: torch.device, precision: str, workers: int) -> dict:
    """The facts that a reader needs, beside the settings, to judge or repeat a run."""
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
    """Device, precision and workers of a run's facts, as text."""
    workers = {0: "no workers", 1: "1 worker"}.get(facts["workers"], f"{facts['workers']} workers")
    return f"{facts['device']}, {facts['precision']}, {workers}"


SAME_HARDWARE_AND_CODE = ("device", "threads", "precision", "python", "versions", "commit")
"""Facts that decide the rounding of a result: a resumed run records where they have changed."""


def check_data(recorded: dict, given: dict) -> None:
    """Raises UserError unless the data of a run and the data here, both as Data.facts(), are the same."""
    there, here = recorded["fingerprint"], given["fingerprint"]
    if there != here:
        problem = f"the run was trained on other data (fingerprint {there}, here {here})"
        raise UserError(f"{problem}: load the same data set")


def continued(before: dict, now: dict, epoch: int) -> dict:
    """The facts of a run that is resumed in `epoch`: the first ones, and under "resumed" what has changed.

    Raises UserError if the data or the transform of the training images is not the same.
    """
    check_data(before["data"], now["data"])
    if before.get("transform") != now.get("transform"):
        raise UserError("the run began with another transform of the training images: pass the same one")
    if "init" in now and now["init"]["sha256"] != before.get("init", {}).get("sha256"):
        raise UserError("the run began with other weights: use the same --init, or none")
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
    """The commit of the code, with -dirty if files were changed since; None outside a git repository."""
    command = ["git", "-C", Path(__file__).parent, "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        answer = subprocess.check_output(command, encoding="utf-8", stderr=subprocess.DEVNULL, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.strip()


def write(run: Run, network: nn.Module) -> None:
    """Writes the records of a run and the weights of its network; each file is written atomically."""
    record = {"settings": asdict(run.settings), **run.facts}
    files.replace(run.folder / SETTINGS, (json.dumps(record, indent=2) + "\n").encode())
    files.replace(run.folder / HISTORY, format_history(run.history).encode())
    files.replace(run.folder / LOG, run.log.encode())
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    # Two networks may have weights of the same names and shapes and compute different functions. A second
    # entry would be written in random order: the same weights would not be the same bytes.
    metadata = {"network": type(network).__name__}
    files.replace(run.folder / WEIGHTS, safetensors.torch.save(weights, metadata))


def format_history(history: Sequence[Epoch]) -> str:
    """The history as CSV text: a header, then one row an epoch."""
    rows = [[f"{value:.{digits}f}" for value, digits in zip(row, PLACES, strict=True)] for row in history]
    return "".join(",".join(row) + "\n" for row in (Epoch._fields, *rows))


@contextmanager
def reading(path: Path, problem: str, advice: str = DAMAGED) -> Iterator[None]:
    """Turns any error in the block, which reads `path`, into a UserError: it is missing or damaged."""
    try:
        yield
    except Exception as error:  # Damage of all kinds raises errors of all kinds.
        raise UserError(f"{path} {problem} ({error}): {advice}") from error


def read_history(path: Path) -> list[Epoch]:
    """The rows of a history.csv. Raises UserError if it is missing or not in format_history's format."""
    with reading(path, "is not the history of a run"):
        text = path.read_text(encoding="utf-8")
        rows = [line.split(",") for line in text.splitlines()[1:]]
        history = [Epoch(int(row[0]), *map(float, row[1:])) for row in rows]
        if not history or [row.epoch for row in history] != list(range(1, len(history) + 1)):
            raise ValueError("its epochs do not count up from 1")
        accuracies = [accuracy for row in history for accuracy in (row.train_accuracy, row.test_accuracy)]
        if not all(0 <= value < math.inf for row in history for value in row) or max(accuracies) > 100:
            raise ValueError("it holds a value that no run has")
        if format_history(history) != text:
            raise ValueError("its columns or numbers are not in the format of a run")
        return history


def _read_settings(folder: Path) -> tuple[Settings, dict]:
    path = folder / SETTINGS
    with reading(path, "is not the record of a run", "name the folder of one"):
        facts = json.loads(path.read_text(encoding="utf-8"))
        settings, found = from_record(facts.pop("settings")), facts.keys() | facts["data"].keys()
        if missing := {"fingerprint", "train", "test", *SAME_HARDWARE_AND_CODE} - found:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        counts = facts["data"]["train"], facts["data"]["test"]
        if not all(isinstance(count, int) and count > 0 for count in counts):
            raise ValueError("its numbers of images are none")
        if not all(isinstance(package, str) for package in facts["versions"].values()):
            raise ValueError("its versions are not text")
        if not isinstance(facts["data"].get("folder", ""), str):
            raise ValueError("its folder of pictures is not text")
        return settings, facts


def read(folder: Path) -> Run:
    """The records of a run, without its weights. Raises UserError if a file is missing or damaged."""
    settings, facts = _read_settings(folder)
    with reading(folder / LOG, "cannot be read"):
        log = (folder / LOG).read_text(encoding="utf-8")
    return Run(folder, settings, facts, read_history(folder / HISTORY), log)


def read_weights(folder: Path, network: nn.Module, classifier: bool = True) -> dict[str, Tensor]:
    """A run's weights for `network`, which must be of the class and have the shapes that were trained.

    classifier: False leaves out the module of that name.
    Raises UserError if the file is missing, damaged, of another network, or not finite.
    """
    path, needed = folder / WEIGHTS, type(network).__name__
    with reading(path, "cannot be read as weights"), safetensors.safe_open(path, "pt") as file:
        named = (file.metadata() or {}).get("network", "")
        saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dictionary.
    if named != needed:
        other = named if named.isidentifier() else "a network without a name"
        raise UserError(f"{path} holds the weights of {other}, not of {needed}: name a run of {needed}")

    def shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
        names = [name for name in tensors if classifier or "classifier" not in name.split(".")]
        return {name: tensors[name].shape for name in names}

    expected = shapes(network.state_dict())
    if shapes(saved) != expected:
        raise UserError(f"{path} holds the weights of another {needed} than the one here: {DAMAGED}")
    weights = {name: saved[name] for name in expected}
    if not all(tensor.float().isfinite().all() for tensor in weights.values()):
        raise UserError(f"{path} holds weights that are not finite: {DAMAGED}")
    return weights


def load_weights(folder: Path, network: nn.Module) -> None:
    """Loads a run's weights into `network`. Raises as read_weights does, and leaves it unchanged then."""
    network.load_state_dict(read_weights(folder, network))
