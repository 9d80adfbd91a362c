"""What a page of this repository shows: its commands and programs, taken out of the Markdown."""

import re
import shlex
import shutil

PROGRAMS = ("accelerate", "gcc", "git", "jupyter", "make", "papermill", "pip", "pytest", "python", "ruff")
PROGRAMS += ("apt-get", "sha256sum", "source", "torchrun")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of that language."""
    return [block for name, block in FENCED.findall(text) if name == language]


def spans(text: str) -> list[str]:
    """What stands between single backticks, fenced blocks aside; over the end of a line too."""
    found = []
    for paragraph in FENCED.sub("\n", text).split("\n\n"):
        assert paragraph.count("`") % 2 == 0, f"a backtick is missing: {paragraph}"
        found += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", paragraph)]
    return found


def is_command(line: str) -> bool:
    """Whether it begins with a program, behind variables that are set for it, and says more than that."""
    words = re.sub(r"^([A-Z0-9_]+=\S* )+", "", line).split()
    # Small letters: some systems would take "Test set" for their program test.
    return len(words) > 1 and (words[0] in PROGRAMS or (words[0].islower() and bool(shutil.which(words[0]))))


def commands(text: str) -> list[str]:
    """The lines of bash blocks, whatever they are, and all commands elsewhere; each once."""
    lines = [line for block in blocks(text, "bash") for line in block.splitlines() if line.strip()]
    other = [line for block in blocks(text, "") for line in block.splitlines()]
    return list(dict.fromkeys([*lines, *filter(is_command, other + spans(text))]))


def words_of(command: str) -> tuple[dict[str, str], list[str]]:
    """The variables that a command sets for itself, and its words."""
    words = shlex.split(command)
    variables = {}
    while re.fullmatch(r"[A-Z0-9_]+=.*", words[0]):
        name, variables[name] = words.pop(0).split("=", 1)
    return variables, words
