"""Checks a run's log, history and settings against each other, and images for JPEG copies."""

import re
from pathlib import Path

import cv2
import numpy as np

from s9 import records
from s9.records import Epoch, Run
from s9.settings import Settings

LOGGED = re.compile(
    r"^Epoch (\d{1,9})\n"
    r"Train: Loss=\S+ Batch_id=(\d{1,9}) Accuracy=(\S+?):.*\[(\d{1,9}(?::\d\d)+)<.*\n"
    r"(?:Test|Validation) set: Average loss: (\S+), Accuracy: (\d{1,9})/([1-9]\d{0,8}) \((\S+)%\)$",
    re.MULTILINE,
)
"""An epoch in a log: number, last batch, train accuracy, time, test loss, correct, images, test accuracy."""


def run_folders(root: Path) -> list[Path]:
    """Folders below root/results that hold a run, in alphabetical order."""
    return sorted(path.parent for path in (root / "results").rglob(records.SETTINGS))


def disagreements(run: Run) -> list[str]:
    """One line for each value on which a run's log, history and settings disagree, to the printed digits.

    Learning rates must follow the schedule of the settings. No epoch may be shorter than its training.
    """
    logged = LOGGED.findall(run.log)
    numbers = [int(entry[0]) for entry in logged], [row.epoch for row in run.history]
    if numbers[0] != numbers[1]:
        return [f"{run.folder}: the log has epochs {numbers[0]}, the history {numbers[1]}"]
    return [
        f"{run.folder}, epoch {row.epoch}: {difference}"
        for entry, row in zip(logged, run.history, strict=True)
        for difference in _differences(run, entry, row)
    ]


def _differences(run: Run, entry: tuple[str, ...], row: Epoch) -> list[str]:
    _, last_batch, train_accuracy, time, test_loss, correct, images, test_accuracy = entry
    settings, data = run.settings, run.facts["data"]
    batches = -(-data["train"] // settings.batch_size)
    counted = 100 * int(correct) / int(images)
    rate = scheduled_rate(settings, batches, row.epoch)
    compared = (
        ("train accuracy", train_accuracy, "log", f"{row.train_accuracy:.2f}", "history"),
        ("test loss", test_loss, "log", f"{row.test_loss:.4f}", "history"),
        ("test accuracy", test_accuracy, "log", f"{row.test_accuracy:.2f}", "history"),
        ("test accuracy", test_accuracy, "log", f"{counted:.2f}", "count of images"),
        ("test images", images, "log", f"{data['test']}", "settings"),
        ("last batch", last_batch, "log", f"{batches - 1}", "settings"),
        ("learning rate", f"{row.learning_rate:.6f}", "history", f"{rate:.6f}", "settings"),
    )
    lines = [f"{name} {a} in the {one}, {b} in the {other}" for name, a, one, b, other in compared if a != b]
    seconds = sum(int(part) * 60**power for power, part in enumerate(reversed(time.split(":"))))
    if seconds > row.seconds + 1:
        lines.append(f"training took {seconds} s in the log, the epoch {row.seconds:.1f} s in the history")
    return lines


def scheduled_rate(settings: Settings, batches: int, epoch: int) -> float:
    """Learning rate of the kernels in the first of an epoch's batches, as make_optimizer schedules it."""
    steps, peak = max(settings.epochs * batches, 2), settings.learning_rate
    turns = [0, settings.rise * steps - 1, steps - 1]
    return float(np.interp((epoch - 1) * batches, turns, [peak / 25, peak, peak / 25e4]))


def jpeg_copies(images: np.ndarray) -> np.ndarray:
    """Which of the uint8 images (n, 32, 32, 3) were once saved as JPEG of quality 75: bool (n,).

    Saving such an image again at that quality hardly changes it. Any other image loses more at quality 75
    than at 85.
    """

    def loss(image: np.ndarray, quality: int) -> float:
        _, encoded = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, quality))
        return float(cv2.absdiff(cv2.imdecode(encoded, cv2.IMREAD_COLOR), image).mean())

    as_bgr = np.ascontiguousarray(images[..., ::-1])
    return np.array([loss(image, 75) < 0.6 * loss(image, 85) for image in as_bgr], dtype=bool)
