"""How a user's mistake is told: one clear line, exit code 2."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn


class UserError(ValueError):
    """Something the user can mend: the message says in one line what is wrong and what to do.

    Every public function raises it for bad input; a command ends with that line and exit code 2.
    """

    def _render_traceback_(self) -> list[str]:
        """IPython's hook: a notebook shows the line alone, no traceback."""
        return [f"{type(self).__name__}: {self}"]


class CommandParser(argparse.ArgumentParser):
    """An ArgumentParser whose `error` prints the one line and leaves the usage to --help."""

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As ever, but for arguments that would break the one line: with a line break in them, say."""
        args = sys.argv[1:] if args is None else list(args)
        for argument in args:
            if not argument.isprintable():
                self.error(f"argument {argument!a} holds a character that cannot be printed: leave it out")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Ends the command with exit code 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")
