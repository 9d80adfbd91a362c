"""The progress bar of the epoch under way: text in a terminal or a pipe, a widget in a notebook."""

import sys
from collections.abc import Callable, Iterable
from typing import Any

from tqdm.auto import tqdm

from loaders import Loader

LINE = "{l_bar}{bar:10}{r_bar}"
"""The bar as text: ten characters, however wide the terminal, so that the log looks the same everywhere."""

IN_NOTEBOOK = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)
"""Whether tqdm has chosen to draw widgets."""

NOTHING = {"text/plain": ""}
"""What is shown where a notebook is to show nothing."""


VIEW = "application/vnd.jupyter.widget-view+json"


class Bars:
    """The bars of a run, one epoch's after another's, all in one place.

    While entered, a notebook shows that place; nothing of it is saved with the notebook afterwards: there a
    widget is dead, and no more than an error message where it was.

    shown: False for bars that are not drawn. watch: sees the batches of an epoch pass by, and hands them on.
    """

    def __init__(self, shown: bool = True, watch: Callable[[Loader], Iterable] = iter) -> None:
        self.shown, self.watch = shown, watch
        self.place = self.display = None

    def __enter__(self) -> "Bars":
        if self.shown and IN_NOTEBOOK:
            from IPython.display import display
            from ipywidgets import HBox  # Here: a second that only a notebook has to wait.

            self.place = HBox()
            # Not display(self.place): ipywidgets 7, which Colab has, would forget the display_id.
            view = {"version_major": 2, "version_minor": 0, "model_id": self.place.model_id}
            self.display = display({VIEW: view, **NOTHING}, raw=True, display_id=True)
        return self

    def __exit__(self, *error: object) -> None:
        if self.place is not None:
            self.place.close()
            self.display.update(NOTHING, raw=True)
            self.place = None

    def open(self, loader: Loader, first: int = 0) -> tqdm:
        """The bar around an epoch's batches, of which the first `first` are done."""
        widget: dict[str, Any] = {}
        if IN_NOTEBOOK:
            widget = {"display": self.place is None, "bar_format": "{l_bar}{bar}{r_bar}"}
        options = {"bar_format": LINE, **widget}
        bar = tqdm(
            self.watch(loader) if self.shown else loader,
            "Train",
            total=len(loader),
            initial=first,
            leave=False,
            file=sys.stdout,
            mininterval=0.5,
            disable=not self.shown,
            **options,
        )
        if self.place is not None:
            self.place.children = (bar.container,)
        return bar

    def close(self, bar: tqdm) -> str:
        """Takes the bar away and returns it as it last was, as text; "" if it was not drawn."""
        bar.close()
        bar.bar_format = LINE
        return str(bar) if self.shown else ""
