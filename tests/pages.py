"""The pages, and the commands and programs on them."""

import re
import shlex

from conftest import REPO

PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md"))]
PROGRAMS = "accelerate cat cd gcc git jupyter make pip pytest python ruff source tensorboard torchrun".split()
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

RUN_ALL = """
import json, runpy, sys
for words in json.loads(sys.argv[1]):
    sys.stdout.reconfigure(errors="strict")
    code, sys.argv = 0, words[words[0] == "-m" :]
    run = runpy.run_module if words[0] == "-m" else runpy.run_path
    try:
        run(sys.argv[0], run_name="__main__")
    except SystemExit as ended:
        code = ended.code or 0
    print(f"<exit {code}>", flush=True)
"""
"""One process for all commands, so that PyTorch is imported once; an exit code ends what each prints."""


def read(path):
    return path.read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of that language."""
    return [block for name, block in FENCED.findall(text) if name == language]


def spans(text: str) -> list[str]:
    """The texts between single backticks outside fenced blocks, also across a line break."""
    found = []
    for paragraph in FENCED.sub("\n", text).split("\n\n"):
        assert paragraph.count("`") % 2 == 0, f"a backtick is missing: {paragraph}"
        found += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", paragraph)]
    return found


def is_command(line: str) -> bool:
    """Whether it begins with a program, after variables, and has an argument."""
    words = re.sub(r"^([A-Z0-9_]+=\S* )+", "", line).split()
    return len(words) > 1 and words[0] in PROGRAMS


def commands(text: str) -> list[str]:
    """All lines of bash blocks, and the commands elsewhere; each once."""
    lines = [line for block in blocks(text, "bash") for line in block.splitlines() if line.strip()]
    other = [line for block in blocks(text, "") for line in block.splitlines()]
    return list(dict.fromkeys([*lines, *filter(is_command, other + spans(text))]))


def words_of(command: str) -> tuple[dict[str, str], list[str]]:
    """The variables that a command sets, and its words."""
    words = shlex.split(command)
    variables = {}
    while re.fullmatch(r"[A-Z0-9_]+=.*", words[0]):
        name, variables[name] = words.pop(0).split("=", 1)
    return variables, words


def required(*names: str) -> set[str]:
    """The packages in requirements files."""
    lines = [line for name in names for line in read(REPO / name).splitlines()]
    return {re.match(r"[\w-]+", line)[0] for line in lines if re.match(r"\w", line)}
