"""The style of every figure: colours, fonts, title; how figures are shown and saved.

Figures bypass pyplot, so they depend neither on its global state nor on a display. Their background is opaque
white, so they stay readable on a dark page.
"""

import functools
import io
import textwrap
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from s9 import files

# Okabe-Ito colours, distinguishable for colour-blind readers; line styles and markers differ as well.
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
GREY = "#E4E4E4"
WIDTH = 10  # inches, 1,100 pixels; GitHub shows a README about 830 wide, so text needs 10 points or more
TITLE_CHARACTERS = 88  # that fit on one line
STYLE = {
    "figure.dpi": 110,
    "figure.titlesize": 13,
    "figure.titleweight": "bold",
    "font.family": "DejaVu Sans",  # bundled with matplotlib, so figures look the same everywhere
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
    "text.parse_math": False,  # class names may hold a $
}
# "default" first, so that the session's own style cannot leak in.
styled = matplotlib.style.context(["default", STYLE])


class NotebookFigure(Figure):
    """A figure that a notebook displays as a cell's last expression; it does not display a plain `Figure`."""

    @functools.cached_property
    def png(self) -> bytes:
        """The PNG file; rendered once, so that the shown and the saved picture are identical."""
        picture = io.BytesIO()
        # A constrained layout settles in its second draw; after the first, text can stick out below.
        self.draw_without_rendering()
        # Not cropped, so that the width is exact; without matplotlib's version, which would change the bytes.
        self.savefig(picture, format="png", metadata={"Software": None})
        return picture.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png


def new_figure(dataset: str, title: str, height: float) -> NotebookFigure:
    """An empty figure, `height` inches high, whose title names the data set.

    Any data set other than "cifar10" is announced on a coloured board, so that its results are never taken
    for CIFAR-10's.
    """
    figure = NotebookFigure(figsize=(WIDTH, height))
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.12)
    prefix, look = "CIFAR-10: ", {}
    if dataset != "cifar10":
        prefix = f"{textwrap.shorten(dataset.upper(), 50)}, not CIFAR-10\n"
        look = {"color": "white", "bbox": {"facecolor": VERMILLION, "edgecolor": "none", "pad": 5}}
    lines = (prefix + title).splitlines()
    text = "\n".join(textwrap.fill(line, TITLE_CHARACTERS) for line in lines)
    figure.suptitle(text, x=0.015, ha="left", **look)
    return figure


def draw_image(axes: Axes, image: np.ndarray, **options: Any) -> None:
    """Draw an image, with options of imshow, without frame, ticks or grid."""
    axes.grid(False)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.imshow(image, **options)


def save(figure: NotebookFigure, path: Path) -> None:
    """Write a figure as PNG, atomically; missing parent folders are created.

    The same data gives the same bytes. Raises UserError if it cannot be written.
    """
    files.ensure_writable(path, "figure.png")
    files.replace(path, figure.png)
