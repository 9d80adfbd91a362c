"""Ties the evidence together: checksums of the files that numbers rest on, logs that agree with histories.

results/SHA256SUMS is in the format of `sha256sum`, with paths from the root of the repository. Runs under
way, in results/unfinished/, are no evidence yet.
"""

import hashlib
import itertools
import re
from pathlib import Path

from s9 import files, records
from s9.errors import UserError
from s9.records import Run

SUMS = "results/SHA256SUMS"
UNFINISHED = "results/unfinished"

LOGGED = re.compile(
    r"^Epoch (\d+)\n"
    r"Train: Loss=\S+ Batch_id=\d+ Accuracy=(\S+?):.*\n"
    r"(?:Test|Validation) set: Average loss: (\S+), Accuracy: \d+/\d+ \((\S+)%\)$",
    re.MULTILINE,
)
"""An epoch in a log: number, train accuracy, test loss, test accuracy; its train loss is one batch's."""

VALUES = ("train accuracy", "test loss", "test accuracy")


def checksums(root: Path) -> dict[str, str]:
    """SHA-256 in hex of the files under results/, of Images/*.png and of S9.ipynb, by path, in its order.

    Left out: SHA256SUMS itself, runs under way, and what git does not keep (checkpoints, hidden files).
    """
    files = [*(root / "results").rglob("*"), *(root / "Images").glob("*.png"), root / "S9.ipynb"]
    paths = {
        path.relative_to(root).as_posix(): path
        for path in files
        if path.is_file() and not path.match("checkpoint*.pt") and not path.name.startswith(".")
        if root / UNFINISHED not in path.parents
    }
    paths.pop(SUMS, None)
    return {name: hashlib.sha256(paths[name].read_bytes()).hexdigest() for name in sorted(paths)}


def write_checksums(root: Path) -> None:
    """Rewrites results/SHA256SUMS from the files as they are."""
    lines = [f"{digest}  {name}\n" for name, digest in checksums(root).items()]
    files.replace(root / SUMS, "".join(lines).encode())


def read_checksums(root: Path) -> dict[str, str]:
    """What results/SHA256SUMS says, by path. Raises UserError if it is missing or is not such a file."""
    try:
        lines = (root / SUMS).read_text(encoding="utf-8").splitlines()
        matches = [re.fullmatch(r"([0-9a-f]{64})  (.+)", line) for line in lines]
        return {match[2]: match[1] for match in matches}
    except (OSError, UnicodeDecodeError, TypeError) as error:
        raise UserError(f"{SUMS} cannot be read ({error}): run python assignment.py readme") from error


def changed_files(root: Path) -> list[str]:
    """A line for every file that differs from results/SHA256SUMS, is missing, or is not listed there."""
    listed, found = read_checksums(root), checksums(root)
    lines = []
    for name in sorted({*listed, *found}):
        if name not in found:
            lines.append(f"{name} is missing")
        elif name not in listed:
            lines.append(f"{name} is not listed in {SUMS}")
        elif listed[name] != found[name]:
            lines.append(f"{name} differs from {SUMS}")
    return lines


def run_folders(root: Path) -> list[Path]:
    """All folders under results/ that hold a run, but for runs under way."""
    folders = sorted(path.parent for path in (root / "results").rglob(records.SETTINGS))
    return [folder for folder in folders if root / UNFINISHED not in folder.parents]


def disagreements(run: Run) -> list[str]:
    """A line for every value on which a run's log and its history differ, in the digits that are shown."""
    logged = LOGGED.findall(run.log)
    for here, row in itertools.zip_longest(logged, run.history):
        numbers = (int(here[0]) if here else None, row.epoch if row else None)
        if numbers[0] != numbers[1]:
            in_log, in_history = (f"epoch {number}" if number else "its end" for number in numbers)
            return [f"{run.folder}: where the history has {in_history}, the log has {in_log}"]
    lines = []
    for (_, *shown), row in zip(logged, run.history, strict=True):
        kept = (f"{row.train_accuracy:.2f}", f"{row.test_loss:.4f}", f"{row.test_accuracy:.2f}")
        for name, here, there in zip(VALUES, shown, kept, strict=True):
            if here != there:
                lines.append(
                    f"{run.folder}, epoch {row.epoch}: {name} {here} in the log, {there} in the history"
                )
    return lines
