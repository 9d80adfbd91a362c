"""A working folder for random command lines, and a check of what they changed in it."""

import contextlib
import functools
import io
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from conftest import program
from made_runs import make_run

import utils
from s9.data import sources
from tools import report


class Sandbox:
    """The working folder: a file, an empty folder, a README.md and a run of two epochs on CIFAR-10."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("empty", "Images"):
            (folder / name).mkdir()
        (folder / "file").write_text("kept", encoding="utf-8")
        (folder / "README.md").write_text("kept too", encoding="utf-8")
        self.run = make_run(folder / "run", accuracies=(86.5, 85.25)).folder

    def files(self) -> dict[str, bytes | None]:
        """Every path below and around it, with its content."""
        paths = sorted(self.folder.parent.rglob("*"))
        return {str(path): path.read_bytes() if path.is_file() else None for path in paths}

    def call(self, command: ModuleType, arguments: list[str]) -> tuple[object, str]:
        """What main returned, or the code it exited with, and what it wrote to stderr; no file may change."""
        before, errors = self.files(), io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            try:
                result = command.main([*arguments])
            except SystemExit as ended:
                result = ended.code
        assert self.files() == before
        return result, errors.getvalue()

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
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(sandbox.folder)
        patch.setattr(utils, "train", accepted)
        patch.setattr(torch, "set_flush_denormal", lambda _: True)
        patch.setattr(sources, "digits", functools.cache(sources.digits))
        patch.setattr(report, "files", SimpleNamespace(replace=accepted))
        patch.setattr(report, "IMAGES", sandbox.folder / "Images")
        yield sandbox
