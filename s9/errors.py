"""How what went wrong is told: one clear line, and an exit code that tells a mistake from a failed run."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn


class _OneLine:
    def _render_traceback_(self) -> list[str]:
        """IPython's hook: a notebook shows the line alone, no traceback."""
        return [f"{type(self).__name__}: {self}"]


class UserError(_OneLine, ValueError):
    """Something the user can mend: the message says in one line what is wrong and what to do.

    Every public function raises it for bad input; a command ends with that line and exit code 2.
    """


class RunError(_OneLine, RuntimeError):
    """A run that was begun rightly and cannot go on: the line says where it stopped, why, and what is kept.

    A command ends with that line and exit code 1.
    """


class Interrupted(_OneLine, KeyboardInterrupt):
    """A run that was asked to stop, and was saved first; `exit_code` is the shell's, 128 + the signal."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def printable(text: object) -> str:
    """`text` on one line: line breaks, control characters and bytes that are no text are escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text)
    )


class CommandParser(argparse.ArgumentParser):
    """An ArgumentParser whose `error` prints the one line and leaves the usage to --help.

    odd_names: positional arguments may hold line breaks and control characters, as names of files can.
    """

    def __init__(self, *args: Any, odd_names: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self.odd_names = odd_names

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's, but refuses control characters, and makes the console escape what it cannot show."""
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        args = sys.argv[1:] if args is None else list(args)
        for argument in args:
            # Bytes that are no text, as names of files may hold, break no line and stay.
            odd = not argument.encode(errors="ignore").decode().isprintable()
            if odd and (not self.odd_names or argument.startswith("-")):
                self.error(f"argument {argument!a} holds a character that cannot be printed: leave it out")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Ends the command with exit code 2."""
        # A name of a file may hold bytes that are no text.
        printable = message.encode(errors="backslashreplace").decode()
        self.exit(2, f"{self.prog}: error: {printable}\n")
