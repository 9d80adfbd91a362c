"""Installs what requirements.txt names and this Python lacks: for a notebook on a machine of its own.

Standard library only: it runs before anything is installed.
"""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

NOT_IN_A_NOTEBOOK = {"jupyter", "papermill"}
"""What starts notebooks: whoever runs this in one has started it already."""


def missing(requirements: Path = Path(__file__).parent.parent / "requirements.txt") -> list[str]:
    """The lines of a requirements file whose package is not installed, in any version."""
    lines = [line.split("#")[0].strip() for line in requirements.read_text(encoding="utf-8").splitlines()]
    absent = []
    for line in filter(None, lines):
        name = re.match(r"[\w.-]+", line)[0]
        try:
            version(name)
        except PackageNotFoundError:
            if name not in NOT_IN_A_NOTEBOOK:
                absent.append(line)
    return absent


def install_missing() -> None:
    """Installs them with pip, and says so; what is there already is left as it is."""
    absent = missing()
    if absent:
        print("installing", ", ".join(absent), flush=True)
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *absent], check=True)
