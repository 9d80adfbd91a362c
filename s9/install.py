"""Installs, with pip, what requirements.txt names and the Python of a hosted notebook lacks.

Needs the standard library and pip alone: it runs before anything is installed.
"""

import importlib
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name

REQUIREMENTS = Path(__file__).parent.parent / "requirements.txt"
KERNEL = ("jupyter", "ipykernel", "ipython", "papermill", "traitlets", "tornado", "pyzmq")
"""What the names of a running kernel's packages begin with: their installed versions stay."""


def unmet() -> list[str]:
    """The lines of requirements.txt that no installed version fits; without the kernel's packages."""

    def met(line: str) -> bool:
        needed = Requirement(line)
        try:
            return needed.specifier.contains(version(needed.name), prereleases=True)
        except PackageNotFoundError:
            return False

    lines = [line.split("#")[0].strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith(KERNEL) and not met(line)]


def install_missing() -> None:
    """Installs what is unmet. The kernel's packages, and a torch that fits, keep their versions.

    Exits with one line if pip fails.
    """
    lines = unmet()
    if not lines:
        return
    print("installing", ", ".join(lines), flush=True)
    changing = {canonicalize_name(Requirement(line).name) for line in lines}
    installed = {canonicalize_name(one.metadata["Name"]) for one in distributions() if one.metadata["Name"]}
    kept = [name for name in installed - changing if name.startswith((*KERNEL, "torch"))]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("".join(f"{name}=={version(name)}\n" for name in kept), encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", str(constraints)]
        done = subprocess.run([*pip, *lines], stderr=subprocess.PIPE, encoding="utf-8", errors="replace")
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        sys.exit(f"pip cannot install {', '.join(lines)} ({reason}): install them, then restart the kernel")
    importlib.invalidate_caches()
