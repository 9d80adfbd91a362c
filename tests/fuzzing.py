"""What the fuzz tests share: inputs, and a working folder for random command lines."""

import contextlib
import functools
import io
import json
import string
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from conftest import long_tests, program
from hypothesis import settings
from hypothesis import strategies as st
from made_runs import make_run

import utils
from s9.data import sources
from tools import report

FACTOR = 10 if long_tests() else 1


def examples(number):
    """Hypothesis's settings for so many examples, ten times as many in long tests."""
    return settings(max_examples=number * FACTOR)


WORDS = st.text(string.ascii_letters + string.digits + "äß世 .,:;=+*'\"\\%{}()[]<>|&$#@!?~^`-_/", max_size=12)
"""Anything that one can type, of any length from 0."""

LONG = "x" * 300
"""Longer than any file system allows a name to be."""


def json_values(keys=WORDS):
    """Any JSON value, with NaN and the infinities, which Python reads too."""
    leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS)
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4)
    )


def damaged_json(keys=WORDS):
    """Bytes that are not JSON, JSON of the wrong kind, and JSON nested too deep to read."""
    return st.one_of(
        st.binary(max_size=20),
        WORDS.map(str.encode),
        json_values(keys).map(lambda value: json.dumps(value).encode()),
        st.integers(5_000, 20_000).map(lambda depth: b'{"settings":' * depth),
    )


class Sandbox:
    """The working folder: a file, an empty folder, a README.md and a run of two epochs on CIFAR-10."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "empty").mkdir()
        (folder / "file").write_text("kept", encoding="utf-8")
        (folder / "README.md").write_text("kept too", encoding="utf-8")
        self.run = make_run(folder / "run", accuracies=(86.5, 85.25)).folder

    def files(self) -> dict[str, bytes | None]:
        """Every path below and around it, with its content."""
        paths = sorted(self.folder.parent.rglob("*"))
        return {str(path): path.read_bytes() if path.is_file() else None for path in paths}

    def call(self, command: ModuleType, arguments: list[str]) -> tuple[object, str]:
        """What main returned, or the code it exited with, and what it wrote; no file may change."""
        before, output = self.files(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                result = command.main([*arguments])
            except SystemExit as ended:
                result = ended.code
        assert self.files() == before
        return result, output.getvalue()

    def refuses(self, command: ModuleType, arguments: list[str]) -> str:
        """Expects exit code 2 and one line, and returns that."""
        code, line = self.call(command, arguments)
        assert code == 2, f"it ended with {code}"
        assert line.startswith(program(command)) and ": error: " in line
        assert line.endswith("\n") and line[:-1].isprintable()
        return line


@contextlib.contextmanager
def opened(folder: Path):
    """The sandbox as the working folder, with a run in it; from then on, whatever trains or writes fails."""

    def accepted(*_, **__):
        raise AssertionError("a bad input was accepted: training or writing began")

    (folder / "sandbox").mkdir()
    sandbox = Sandbox(folder / "sandbox")
    torch.set_flush_denormal(False)  # As other tests may have left it.
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(sandbox.folder)
        patch.setattr(utils, "train", accepted)
        patch.setattr(torch, "set_flush_denormal", lambda _: True)
        patch.setattr(sources, "digits", functools.cache(sources.digits))
        patch.setattr(report, "files", SimpleNamespace(replace=accepted))
        patch.setattr(report, "draw_figures", accepted)
        yield sandbox
