"""Puts a fork's own address where the repository names one: the badges, the notebook's clone line, torch.hub.

python -m tools.stamp                 the address of the git remote `origin`
python -m tools.stamp OWNER/REPO      or this one

Again with another address, it takes the former's place. Standard library only: it runs in a fresh clone,
before anything is installed.
"""

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

from s9.errors import CommandParser, UserError

REPO = Path(__file__).parent.parent
NOTEBOOK, SUMS = "S9.ipynb", "results/SHA256SUMS"

NAMED = r"([\w.-]+/[\w.-]+?)"
BADGE = rf"(colab\.research\.google\.com/github/){NAMED}(/blob/)"
CLONE = rf"(https://github\.com/){NAMED}(\.git)"
HUB = rf'(torch\.hub\.load\("){NAMED}(")'
PLACES = {
    "README.md": {"badge": BADGE, "torch.hub.load": HUB},
    NOTEBOOK: {"badge": BADGE, "address to clone": CLONE},
    "hubconf.py": {"torch.hub.load": HUB},
}
"""Where addresses stand: what is before, the address, what is behind."""

ADDRESS = re.compile(
    r"(?:(?:https?://|ssh://)(?:[^@/]*@)?github\.com(?::\d+)?/|git@github\.com:)?"
    r"(?P<owner>[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38})/(?P<repo>(?!\.+$)[A-Za-z0-9._-]{1,100}?)(?:\.git)?/?"
)
"""OWNER/REPO by GitHub's rules, alone or as git and browsers have it. No owner may be named YOUR_NAME."""


def main(arguments: list[str] | None = None) -> None:
    """Runs the command; ends with exit code 2 after one line about a user's mistake."""
    parser = CommandParser(
        prog="python -m tools.stamp",
        description="Put your fork's address into the badges, the notebook and the README.",
    )
    parser.add_argument(
        "address", nargs="?", metavar="OWNER/REPO", help="on GitHub; default: that of the git remote origin"
    )
    options = parser.parse_args(arguments)
    try:
        address = own_address(REPO) if options.address is None else parse(options.address)
        changed = stamp(REPO, address)
    except UserError as error:
        parser.error(str(error))
    print(f"{address}: {', '.join(changed)} changed: commit and push" if changed else f"{address} as before")


def parse(text: str) -> str:
    """OWNER/REPO of an address on GitHub. Raises UserError if it is none."""
    match = ADDRESS.fullmatch(text)
    if match is None:
        raise UserError(f"{text!r} is no address on GitHub: give OWNER/REPO, such as alice/S9")
    return f"{match['owner']}/{match['repo']}"


def origin(folder: Path) -> str:
    """The address of the git remote `origin`, as git has it, passwords and all; empty where there is none."""
    command = ["git", "remote", "get-url", "origin"]
    try:
        return subprocess.run(
            command, cwd=folder, capture_output=True, encoding="utf-8", timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def own_address(folder: Path) -> str:
    """OWNER/REPO of the git remote `origin`. Raises UserError, which hides it, if it is not on GitHub."""
    try:
        return parse(origin(folder))
    except UserError:
        raise UserError(
            "the git remote origin is missing or not on GitHub: give OWNER/REPO, such as alice/S9"
        ) from None


def stamped(root: Path) -> str | None:
    """OWNER/REPO that the README names; None if it was not stamped yet, or is not there."""
    try:
        return parse(re.search(BADGE, (root / "README.md").read_text(encoding="utf-8"))[2])
    except (OSError, TypeError, UserError):
        return None


def stamp(root: Path, address: str) -> list[str]:
    """Writes the address wherever the repository in `root` names its own; the names of the changed files.

    With the notebook its line in results/SHA256SUMS changes, if that was right before: a notebook that
    differs from its checksum still does so afterwards.

    Raises UserError, and changes nothing, for an address that is none, and if a file or a place in it is
    missing, or cannot be written.
    """
    address = parse(address)
    old = {name: _read(root / name) for name in (*PLACES, SUMS)}
    new = {name: _with(address, name, old[name]) for name in PLACES}
    before, after = (hashlib.sha256(texts[NOTEBOOK].encode()).hexdigest() for texts in (old, new))
    new[SUMS] = old[SUMS].replace(f"{before}  {NOTEBOOK}\n", f"{after}  {NOTEBOOK}\n")
    changed = [name for name in new if new[name] != old[name]]
    try:
        _replace_all({root / name: new[name].encode() for name in changed})
    except OSError as error:
        what = error.filename or ", ".join(changed)
        raise UserError(f"cannot write {what} ({error.strerror}): nothing is changed") from error
    return changed


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): bring it back") from error


def _with(address: str, name: str, text: str) -> str:
    for what, place in PLACES[name].items():
        text, count = re.subn(place, rf"\g<1>{address}\g<3>", text)
        if not count:
            raise UserError(f"{name} holds no {what} with an address in it: bring that line back")
    return text


def _replace_all(contents: dict[Path, bytes]) -> None:
    """Writes all of these files or none; new and old ones lie ready, disk space and all, before one moves."""
    new, old = (
        {path: path.with_name(f".{path.name}-{age}-tmp") for path in contents} for age in ("new", "old")
    )
    moved = []
    try:
        for path, content in contents.items():
            shutil.copy(path, old[path])
            shutil.copy(path, new[path])  # The same permissions, then other content.
            new[path].write_bytes(content)
        for path in contents:
            moved.append(path)
            new[path].replace(path)
    except BaseException:
        for path in moved:
            old[path].replace(path)
        raise
    finally:
        for left in (*new.values(), *old.values()):
            left.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
