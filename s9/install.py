"""Installs, with pip, what requirements.txt names and the Python of a hosted notebook lacks.

Needs the standard library and pip alone: it runs before anything is installed.
"""

import importlib
import re
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path

REQUIREMENTS = Path(__file__).parent.parent / "requirements.txt"
KERNEL = ("jupyter", "ipykernel", "ipython", "papermill", "traitlets", "tornado", "pyzmq")
"""What the names of a running kernel's packages begin with: their installed versions stay."""


def unmet(requirements: Path = REQUIREMENTS) -> list[str]:
    """The lines of a requirements file that no installed version fits; without the kernel's packages."""
    from pip._vendor.packaging.requirements import Requirement  # Only pip is certain to be installed.

    installed = _installed()
    lines = [line.split("#")[0].strip() for line in requirements.read_text(encoding="utf-8").splitlines()]

    def met(line: str) -> bool:
        needed = Requirement(line)
        version = installed.get(_plain(needed.name))
        return version is not None and needed.specifier.contains(version, prereleases=True)

    return [line for line in lines if line and not line.startswith(KERNEL) and not met(line)]


def install_missing() -> None:
    """Installs what is unmet, and prints which packages have changed.

    The kernel's packages, and a torch that fits, keep their versions. Exits with one line if pip fails.
    """
    lines = unmet()
    if not lines:
        return
    print("installing", ", ".join(lines), flush=True)
    before = _installed()
    changing = {_plain(re.match(r"[\w.-]+", line)[0]) for line in lines}
    kept = {name: number for name, number in before.items() if name.startswith((*KERNEL, "torch"))}
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        pins = [f"{name}=={number}\n" for name, number in kept.items() if name not in changing]
        constraints.write_text("".join(pins), encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", str(constraints)]
        done = subprocess.run([*pip, *lines], stderr=subprocess.PIPE, encoding="utf-8", errors="replace")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        sys.exit(f"pip cannot install {', '.join(lines)} ({reason}): install them, then restart the kernel")
    importlib.invalidate_caches()
    for name, number in _installed().items():
        if before.get(name) != number:
            print(f"{name}: {before.get(name, 'new')} -> {number}")


def _installed() -> dict[str, str]:
    """Version by name; of several copies, that of the one that is imported."""
    found = [(one.metadata["Name"], one.version) for one in distributions()]
    return {_plain(name): version for name, version in reversed(found) if name}


def _plain(name: str) -> str:
    """A package's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
