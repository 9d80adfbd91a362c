"""Atomic writes: a reader sees the old file or the new one."""

import os
from pathlib import Path

from s9.errors import UserError


def ensure_writable(path: Path, example: str) -> None:
    """Creates the folder of a file that replace() will write. Raises UserError if it cannot be written.

    example: a file name for the message, in case `path` is a folder.
    """
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder: choose a file, such as {path / example}")
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = _temporary(path)
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write to {path.parent} ({error.strerror}): choose another output folder"
        ) from error


def replace(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name, syncs it, then renames it."""
    temporary = _temporary(path)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}-{os.getpid()}-tmp")
