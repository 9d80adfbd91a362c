"""Curves that grow in a notebook while a network trains."""

from collections.abc import Sequence

from IPython.display import display

import plots
from bars import NOTHING
from records import Epoch
from settings import Settings


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
            self.display.update(plots.plot_metrics(history, self.settings.dataset, self.settings.model))
        else:
            self.display.update(NOTHING, raw=True)
