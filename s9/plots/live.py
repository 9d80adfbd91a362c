"""Training curves that are updated in a notebook after every epoch."""

from IPython.display import Image, display

from s9.plots import curves
from s9.records import Run

EMPTY = {"text/plain": ""}
"""Displays nothing."""
WIDTH = 750  # pixels on the screen, less than the picture has, to leave room for the log


class Curves:
    """The training curves, a picture that is redrawn in place: for utils.fit's `after_epoch`.

    It appears where the object is created. After the last epoch it is removed, since the notebook then draws
    the curves of the whole run; it stays if the run is interrupted.
    """

    def __init__(self) -> None:
        self.display = display(EMPTY, raw=True, display_id=True)

    def __call__(self, run: Run) -> None:
        """Draws the history of a run, at least one epoch."""
        if not run.complete:
            figure = curves.plot_metrics(run.history, run.settings.dataset, run.settings.model)
            self.display.update(Image(figure.png, width=WIDTH))
        else:
            self.display.update(EMPTY, raw=True)
