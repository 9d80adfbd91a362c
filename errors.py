"""How a user's mistake is told: one clear line, exit code 2."""

import argparse
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

    def error(self, message: str) -> NoReturn:
        """Ends the command with exit code 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")
