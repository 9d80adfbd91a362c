"""Files that are written whole or not at all."""

import os
from pathlib import Path

from s9.errors import UserError


def ensure_writable(path: Path, example: str) -> None:
    """Makes the folder of a file that replace() is to write. Raises UserError if it could not be written.

    example: a name that such a file might have, for whoever gave a folder in its place.
    """
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder: name a file, such as {path / example}")
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = _temporary(path)
        probe.touch()
        probe.unlink(
            missing_ok=True
        )  # Of several processes, another may have cleared it away: see create_run.
    except OSError as error:
        raise UserError(
            f"cannot write to {path.parent} ({error.strerror}): name another output folder"
        ) from error


def replace(path: Path, content: bytes) -> None:
    """Writes a file under another name, then renames it: a reader sees the old one or the new one."""
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
