"""How every figure looks, defined once: colours, fonts, the title's form; how it is shown and saved.

The figures are not pyplot's, so nothing depends on its global state or on a display, and a figure that is
dropped is freed. Their background is white and opaque, so that they can be read on a dark page as well.
"""

import functools
import io
import textwrap
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from s9 import files
from s9.errors import UserError

# Okabe-Ito colours, which colour-blind readers can tell apart; line style and marker differ as well.
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
GREY = "#E4E4E4"
WIDTH = 10  # inches, 1,100 pixels: a README shows them at about 830, so text needs 10 points or more
TITLE_CHARACTERS = 88  # that fit into WIDTH on one line
STYLE = {
    "figure.dpi": 110,
    "figure.titlesize": 13,
    "figure.titleweight": "bold",
    "font.family": "DejaVu Sans",  # comes with matplotlib, so the figures look the same everywhere
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#DDDDDD",
    "image.interpolation": "nearest",
    "lines.markersize": 4,
}
# "default" first: what the user's session has set, such as a dark style, must not leak in.
styled = matplotlib.style.context(["default", STYLE])

TITLES = {"cifar10": "CIFAR-10: ", "digits": "DIGITS, not CIFAR-10\n"}  # how they begin


class NotebookFigure(Figure):
    """A figure that a notebook shows, once, as a cell's last expression; a plain `Figure` is not shown."""

    @functools.cached_property
    def png(self) -> bytes:
        """The picture; drawn once, so that what is shown and what is saved are the same bytes."""
        picture = io.BytesIO()
        # A constrained layout settles in its second draw: from the first, text can stick out below.
        self.draw_without_rendering()
        # Not cropped, so that the width is exact; not signed with a version, which would change the bytes.
        self.savefig(picture, format="png", metadata={"Software": None})
        return picture.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png


def new_figure(dataset: str, title: str, height: float) -> NotebookFigure:
    """An empty figure, `height` inches high, whose title begins with the data set, "cifar10" or "digits".

    Raises UserError for another data set.
    """
    if dataset not in tuple(TITLES):
        raise UserError(f"dataset: {dataset!r} is unknown, must be one of {', '.join(TITLES)}")
    figure = NotebookFigure(figsize=(WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.12)
    lines = (TITLES[dataset] + title).splitlines()
    text = "\n".join(textwrap.fill(line, TITLE_CHARACTERS) for line in lines)
    # Results on the digits must never be taken for CIFAR-10's, so their title is a signboard.
    board = {"facecolor": VERMILLION, "edgecolor": "none", "pad": 5}
    look = {"color": "white", "bbox": board} if dataset == "digits" else {}
    figure.suptitle(text, x=0.015, ha="left", **look)
    return figure


def draw_image(axes: Axes, image: np.ndarray) -> AxesImage:
    """Draw an image as imshow takes it, without a frame, ticks or a grid."""
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return axes.imshow(image)


def save(figure: NotebookFigure, path: str | Path) -> Path:
    """Write a figure as PNG and return the path; missing parent folders are made.

    The file appears whole or not at all. The same data, drawn anew, gives the same bytes.

    Raises:
        UserError: the path does not end in .png or cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise UserError(f"{path}: a figure is saved as PNG, so its name must end in .png")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, figure.png)
    except OSError as error:
        raise UserError(f"{path}: cannot write the figure ({error.strerror})") from error
    return path
