"""Writes a fork's address where the repository names its own: the badges, the notebook, torch.hub.

python -m tools.stamp

The address is that of the git remote `origin`. Needs the standard library alone: it runs in a fresh clone.
"""

import re
import subprocess
from pathlib import Path

from s9.errors import CommandParser, UserError, run_command

REPO = Path(__file__).parent.parent
NAMED = re.compile(
    r'(colab\.research\.google\.com/github/|(?:address = .*|git clone )https://github\.com/|torch\.hub\.load\(\\?")'
    r"([\w.-]+/[\w.-]+?)(/blob/|\.git|\\?\")"
)
"""An address that the repository names as its own, with what stands before and after it."""
PLACES = ("README.md", "docs/usage.md", "S9.ipynb", "hubconf.py")
"""The files that hold some."""
ADDRESS = re.compile(
    r"(?:(?:https?://|ssh://)(?:[^@/]*@)?github\.com(?::\d+)?/|git@github\.com:)"
    r"([A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}/(?!\.+$)[A-Za-z0-9._-]{1,100}?)(?:\.git)?/?"
)
"""OWNER/REPO by GitHub's rules in an address of git; never the owner YOUR_NAME."""


def main(arguments: list[str] | None = None) -> None:
    """Runs the command; exits with code 2 after one line about a user's mistake."""
    parser = CommandParser(
        prog="python -m tools.stamp",
        description="Write the git remote origin's address into the badges, the notebook and the README.",
    )
    parser.parse_args(arguments)
    try:
        address = own_address(REPO)
        changed = stamp(REPO, address)
    except UnicodeError as error:
        parser.error(f"a file to stamp is not UTF-8 ({error}): git restore it")
    except (UserError, OSError) as error:
        parser.error(str(error))
    print(f"{address}: {', '.join(changed)} changed: commit and push" if changed else f"{address} as before")


def own_address(folder: Path) -> str:
    """OWNER/REPO of the git remote `origin`. Raises UserError, without its text, if it is not on GitHub."""
    command = ["git", "remote", "get-url", "origin"]
    try:
        url = subprocess.check_output(command, cwd=folder, encoding="utf-8", stderr=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        url = ""
    match = ADDRESS.fullmatch(url.strip())
    if match is None:
        example = "https://github.com/alice/S9.git"
        raise UserError(f"the git remote origin is missing or not on GitHub: set it, such as to {example}")
    return match[1]


def stamp(root: Path, address: str) -> list[str]:
    """Writes OWNER/REPO into the files in `root` that name it; returns the names of those that change.

    Raises OSError or UnicodeError, and changes nothing, if one is missing or no text in UTF-8.
    """
    old = {name: (root / name).read_bytes().decode() for name in PLACES}
    new = {name: NAMED.sub(rf"\g<1>{address}\g<3>", text) for name, text in old.items()}
    changed = [name for name in PLACES if new[name] != old[name]]
    for name in changed:
        (root / name).write_bytes(new[name].encode())
    return changed


if __name__ == "__main__":
    run_command(main)
