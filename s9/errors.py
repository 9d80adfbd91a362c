"""Errors that end in one clear line, and exit codes that tell a user's mistake from a failed run."""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

NOTEBOOK_VARIABLES = ("model", "epochs", "seed", "dataset", "data_dir", "runs", "resume")
"""Options of the command line that are variables of S9.ipynb's settings cell, there in capitals."""


def in_notebook() -> bool:
    """Whether this code runs in a Jupyter kernel, Colab's included."""
    ipython = sys.modules.get("IPython")
    return getattr(ipython and ipython.get_ipython(), "kernel", None) is not None


def option(name: str) -> str:
    """How the user names an option: --batch-size on the command line; in a notebook EPOCHS, or batch_size."""
    if in_notebook():
        return name.upper() if name in NOTEBOOK_VARIABLES else name
    return "--" + name.replace("_", "-")


def how_to_resume(folder: Path) -> str:
    """What to do to continue the run in `folder`, as the last part of a message."""
    if in_notebook():
        return "to continue it, set RESUME = True in the settings cell and run all cells"
    return f"to continue it, pass --resume --out {folder}"


class _OneLine:
    def _render_traceback_(self) -> list[str]:
        """IPython's hook: a notebook shows the line alone, without a traceback."""
        return [f"{type(self).__name__}: {self}"]


class UserError(_OneLine, ValueError):
    """A mistake that the user can correct: the message says in one line what is wrong and what to do.

    Every public function raises it for bad input; a command prints that line and exits with code 2.
    """


class RunError(_OneLine, RuntimeError):
    """A run that started correctly and failed: the message says where, why, and what is kept.

    A command prints that line and exits with code 1.
    """


class Interrupted(_OneLine, KeyboardInterrupt):
    """A run that was stopped by a signal, and saved in `folder`; the exit code is 128 + the signal.

    where: "in epoch 2", for the message.
    """

    def __init__(self, where: str, number: int, folder: Path) -> None:
        by = signal.Signals(number).name
        super().__init__(f"stopped {where} by {by}; the run is saved in {folder}: {how_to_resume(folder)}")
        self.exit_code, self.folder = 128 + number, folder


def printable(text: object) -> str:
    """`text` on one line: line breaks, control characters and bytes that are no text are escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text)
    )


def one_line(error: Exception) -> str:
    """The beginning of the error's text, on one line, or its type if it has none."""
    return " ".join(str(error).split())[:120] or type(error).__name__


class CommandParser(argparse.ArgumentParser):
    """An ArgumentParser whose `error` prints the one line and leaves the usage to --help.

    From then on the console escapes what it cannot show.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")

    def error(self, message: str) -> NoReturn:
        """Prints the message, on one line, and exits with code 2."""
        self.exit(2, f"{self.prog}: error: {printable(message)}\n")


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Exits with what `main` returns.

    If its output is read no further, as by `head`, silently with 141; if the disk is full, with 1 and a line.
    """
    try:
        try:
            code = main()
        finally:  # Also if main() exits, as it does after a mistake.
            if sys.stdout:
                sys.stdout.flush()
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            code = 141
        elif error.errno == errno.ENOSPC:
            code = 1
            print(f"the output cannot be written ({error.strerror}): free disk space", file=sys.stderr)
        else:
            raise
        # Python writes what is left of them at the end.
        for stream in filter(None, (sys.stdout, sys.stderr)):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)
