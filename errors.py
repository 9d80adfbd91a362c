"""The one exception that stands for a user's mistake."""


class UserError(ValueError):
    """Something the user can mend: the message is one clear line that says what is wrong and what to do.

    Every public function raises it for bad input; every command prints it and ends with exit code 2.
    """

    def _render_traceback_(self) -> list[str]:
        """IPython's hook: a notebook shows the line alone, no traceback."""
        return [f"{type(self).__name__}: {self}"]
