"""Curves that grow in a notebook while a network trains."""

from collections.abc import Sequence

from IPython.display import Image, display

from s9.engine.progress import NOTHING
from s9.plots import curves
from s9.records import Epoch
from s9.settings import Settings

WIDTH = 750
"""Pixels on the screen, fewer than the picture has: bar and log are to be seen below it."""


class Curves:
    """The curves so far, one picture that each epoch changes in place: for utils.fit's `after_epoch`.

    Made where they are to be seen. After the last epoch they are gone, since the whole run's are then drawn
    as every other picture is; those of a run that was broken off stay.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.display = display(NOTHING, raw=True, display_id=True)

    def __call__(self, history: Sequence[Epoch]) -> None:
        """Draws the history, at least one row."""
        if len(history) < self.settings.epochs:
            figure = curves.plot_metrics(history, self.settings.dataset, self.settings.model)
            self.display.update(Image(figure.png, width=WIDTH))
        else:
            self.display.update(NOTHING, raw=True)
