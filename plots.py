"""Draws the figures of the README and the notebook: augmentations, curves, wrong predictions, comparisons.

Knows nothing of training: arrays and records come in, figures go out. The figures are not pyplot's, so
nothing depends on its global state or on a display, and a figure that is dropped is freed.
"""

import functools
import io
import itertools
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import records
from errors import UserError
from records import Epoch

# Okabe-Ito colours, which colour-blind readers can tell apart; line style and marker differ as well.
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
TRAIN = {"color": BLUE, "linestyle": "--", "marker": "o", "label": "train"}
TEST = {"color": VERMILLION, "linestyle": "-", "marker": "s", "label": "test"}
OURS = {"color": VERMILLION, "linestyle": "none", "marker": "s", "markersize": 7, "label": "here"}
PUBLIC = {"color": BLUE, "linestyle": "none", "marker": "o", "markersize": 6, "label": "public"}
WIDTH = 10  # inches, 1,100 pixels: a README shows them at about 830, so text needs 10 points or more
TITLE_CHARACTERS = 88  # that fit into WIDTH on one line
COLUMNS = 5  # of the misclassified images
PARAMETER_TICKS = [digit * 10**power for power in range(3, 10) for digit in (1, 2, 5)]
LABEL_GAP = 0.45  # percent between the accuracies that labels stand at
MARKERS = 25  # on a line, about, however many epochs there are
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

IMAGES = ("n", "height", "width", 3)  # the shape of many
DATASETS = {"cifar10": "CIFAR-10: ", "digits": "DIGITS, not CIFAR-10\n"}  # how titles begin


class Mark(NamedTuple):
    """A network among others: its size, and its test accuracy in percent."""

    name: str
    parameters: int
    accuracy: float
    spread: float | None = None
    """Standard deviation over seeds; None of a single run, or if it is not known."""


class NotebookFigure(Figure):
    """A figure that a notebook shows, once, as a cell's last expression; a plain `Figure` is not shown."""

    @functools.cached_property
    def png(self) -> bytes:
        """The picture; drawn once, so that what is shown and what is saved are the same bytes."""
        picture = io.BytesIO()
        # Not cropped, so that the width is exact; not signed with a version, which would change the bytes.
        self.savefig(picture, format="png", metadata={"Software": None})
        return picture.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png


@styled
def plot_augmentations(
    images: np.ndarray, transforms: Mapping[str, Callable[[np.ndarray], np.ndarray]], dataset: str
) -> NotebookFigure:
    """Draw one row per transform and one column per image, the same images in every row.

    Each transform is called once per image, in reading order, on a copy. The randomness is the
    transforms' own: seed them to get the same figure again.

    Args:
        images: uint8 (n, height, width, 3), n at least 1; 8 fill the width well.
        transforms: row title -> function from uint8 (height, width, 3) to the same shape and dtype.
        dataset: "cifar10" or "digits".

    Raises:
        UserError: an argument, or what a transform returns, is not as described.
    """
    _check("images", images, IMAGES, np.uint8)
    if not transforms:
        raise UserError("transforms: there is none to draw, give at least one")
    title = "one row per augmentation, the same images in every row"
    figure = _figure(dataset, title, height=0.5 + 1.05 * len(transforms))
    grid = figure.subplots(len(transforms), len(images), squeeze=False)
    for row, (name, transform) in zip(grid, transforms.items(), strict=True):
        for axes, image in zip(row, images, strict=True):
            changed = transform(image.copy())
            _check(f"transforms: what {name!r} returns", changed, image.shape, np.uint8)
            _draw_image(axes, changed)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


@styled
def plot_metrics(history: Sequence[Epoch], dataset: str, model: str) -> NotebookFigure:
    """Draw loss, accuracy and learning rate over the epochs; the headline is the last epoch's test accuracy.

    The best epoch is not marked: picking it would mean choosing by the test set.

    Args:
        history: at least one row, in the order of `epoch`.
        dataset: "cifar10" or "digits".
        model: the name that the title gives the model.

    Raises:
        UserError: the history is empty or out of order, or the data set is unknown.
    """
    if not history:
        raise UserError("history: it is empty, there is no epoch to draw")
    epochs = [row.epoch for row in history]
    if any(later <= earlier for earlier, later in itertools.pairwise(epochs)):
        raise UserError("history: the epochs are not in increasing order")
    last = history[-1]
    title = f"{model}, {last.test_accuracy:.2f}% test accuracy after epoch {last.epoch}"
    figure = _figure(dataset, title, height=6.5)
    panels = figure.subplot_mosaic([["loss", "accuracy"], ["rate", "rate"]], height_ratios=[2.2, 1])
    every = max(1, len(history) // MARKERS)
    for name, heading in (("loss", "Loss (lower is better)"), ("accuracy", "Accuracy, % (higher is better)")):
        for split, line in (("train", TRAIN), ("test", TEST)):
            values = [getattr(row, f"{split}_{name}") for row in history]
            panels[name].plot(epochs, values, **line, markevery=every)
        panels[name].set_title(heading)
        panels[name].legend()
    # Right of the last point, where it cannot cover a curve; the layout makes room for it.
    panels["accuracy"].annotate(
        f"{last.test_accuracy:.2f}%\nlast epoch",
        (last.epoch, last.test_accuracy),
        xytext=(8, 0),
        textcoords="offset points",
        va="bottom",
        color=VERMILLION,
        weight="bold",
    )
    rates = [row.learning_rate for row in history]
    panels["rate"].plot(epochs, rates, color=GREEN, marker="o", markevery=every)
    panels["rate"].set_title("Learning rate")
    for axes in panels.values():
        axes.set_xlabel("epoch")
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + max(0.5, 0.02 * len(epochs)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


@styled
def plot_misclassified(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    dataset: str,
    count: int = 20,
) -> NotebookFigure:
    """Draw wrongly classified test images with the true class, the predicted one and its probability.

    They are a fair sample, not picked: all mistakes are ranked by the predicted class's probability, from
    high to low (equal ones by index), and `count` evenly spaced ranks, with both ends, are drawn in order.

    Args:
        images: uint8 (N, height, width, 3), the whole test set, not augmented.
        labels: integers (N,), 0 to len(classes) - 1.
        probabilities: floats (N, len(classes)), 0 to 1; the largest of a row is the prediction.
        classes: the names of the classes.
        dataset: "cifar10" or "digits".
        count: how many to draw, at least 2; all mistakes are drawn if there are no more.

    Raises:
        UserError: an argument is not as described.
    """
    _check("images", images, IMAGES, np.uint8)
    _check("labels", labels, (len(images),), np.integer)
    _check("probabilities", probabilities, (len(images), len(classes)), np.floating)
    if labels.min() < 0 or labels.max() >= len(classes):
        raise UserError(f"labels: must be 0 to {len(classes) - 1}, got {labels.min()} to {labels.max()}")
    # Written so that NaN fails as well; the slack is for rounding.
    if not (probabilities.min() >= 0 and probabilities.max() <= 1.001):
        raise UserError("probabilities: must be 0 to 1, are these logits?")
    if not isinstance(count, int) or count < 2:
        raise UserError(
            f"count: it is {count!r}, but must be at least 2, the most and the least confident mistake"
        )
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    ranked = wrong[np.argsort(-confidence[wrong], kind="stable")]
    shown = ranked[np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)]

    title = f"{len(wrong):,} of {len(images):,} test images are misclassified"
    if len(shown) == 0:
        figure = _figure(dataset, f"{title}\nThere is no mistake to show", height=1.2)
        figure.subplots().set_axis_off()  # the layout places a title only above axes
        return figure
    sample = "all of them" if len(shown) == len(wrong) else f"{len(shown)} at even steps"
    title += f"\nShown: {sample}, from the most to the least confident mistake"
    rows = -(-len(shown) // COLUMNS)
    figure = _figure(dataset, title, height=0.6 + 2 * rows)
    cells = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for index, axes in zip(shown, cells, strict=False):
        # 99.7% must not read as 100%, a certainty.
        percent = ">99%" if confidence[index] >= 0.995 else f"{confidence[index]:.0%}"
        _draw_image(axes, images[index])
        axes.set_title(f"true: {classes[labels[index]]}", loc="center", size=10)
        axes.set_xlabel(f"model: {classes[predicted[index]]} {percent}", color=VERMILLION, size=10)
    for axes in cells:  # goes on behind the last image
        axes.set_axis_off()
    return figure


@styled
def plot_scaling(scaling: Mapping[str, Mapping[int, float]], machine: str) -> NotebookFigure:
    """Draw images/s against batch size, workers and threads, one panel each on one scale.

    Args:
        scaling: what is varied -> {its value: images/s}, at least one of each.
        machine: the name that the title gives the machine.

    Raises:
        UserError: there is nothing to draw, or a rate is no positive number.
    """
    if not scaling or not all(scaling.values()):
        raise UserError("scaling: there is nothing to draw, measure it first (bench.py --only scaling)")
    rates = [rate for points in scaling.values() for rate in points.values()]
    if not all(isinstance(rate, int | float) and 0 < rate < math.inf for rate in rates):
        raise UserError("scaling: a rate is no positive number, measure it anew (bench.py --only scaling)")
    title = f"training the reference network, images/s\n{machine}"
    figure = _figure("cifar10", title, height=3.4)
    panels = figure.subplots(1, len(scaling), sharey=True, squeeze=False)[0]
    for axes, (varied, points) in zip(panels, scaling.items(), strict=True):
        names = [str(value) for value in points]
        bars = axes.bar(names, list(points.values()), color=BLUE, width=0.6)
        axes.bar_label(bars, [f"{rate:,.0f}" for rate in points.values()], padding=2, size=9)
        axes.set_title(f"by {varied}")
        axes.set_xlabel(varied)
        axes.grid(False, axis="x")
    panels[0].set_ylim(0, 1.12 * max(rates))
    return figure


@styled
def plot_accuracy(
    ours: Sequence[Mark], public: Sequence[Mark], parameter_limit: int, accuracy_limit: float
) -> NotebookFigure:
    """Draw test accuracy on CIFAR-10 against parameters, our networks and those of others.

    Args:
        ours: at least one; what is known of their spread over seeds is drawn as an error bar.
        public: what others have reached.
        parameter_limit: number of parameters that is already too many.
        accuracy_limit: percent that are asked for.

    Raises:
        UserError: there is none of ours to draw.
    """
    if not ours:
        raise UserError("ours: there is no network to draw, train one first")
    figure = _figure("cifar10", "test accuracy against parameters", height=6)
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.axvline(parameter_limit, color=GREEN, linestyle="--")
    axes.axhline(accuracy_limit, color=GREEN, linestyle=":")
    for marks, line, align in ((public, PUBLIC, "right"), (ours, OURS, "left")):
        axes.plot([mark.parameters for mark in marks], [mark.accuracy for mark in marks], **line)
        for mark in marks:
            if mark.spread is not None:
                axes.errorbar(mark.parameters, mark.accuracy, mark.spread, color=line["color"], capsize=6)
        _label(axes, marks, line["color"], align)
    sizes = [mark.parameters for mark in (*ours, *public)]
    axes.set_xlim(min(sizes) / 1.75, max(*sizes, parameter_limit) * 1.5)
    edges = axes.get_xlim()
    ticks = [count for count in PARAMETER_TICKS if edges[0] < count < edges[1]]
    axes.set_xticks(ticks, [f"{count:,}" for count in ticks])
    axes.minorticks_off()
    axes.set_xlabel("parameters, logarithmic")
    axes.set_ylabel("test accuracy, %")
    axes.margins(y=0.1)
    look = {"color": GREEN, "size": 10, "va": "top"}
    axes.text(parameter_limit, axes.get_ylim()[1], f" limit: fewer than {parameter_limit:,}", **look)
    axes.text(edges[1], accuracy_limit, f"target: {accuracy_limit:g}% ", ha="right", **look)
    axes.legend(loc="center right")
    return figure


def _label(axes: Axes, marks: Sequence[Mark], color: str, align: str) -> None:
    """Write names and accuracies on one side of the marks, higher where one would cover another."""
    lowest = -np.inf
    side = -1 if align == "right" else 1
    for mark in sorted(marks, key=lambda mark: mark.accuracy):
        lowest = height = max(mark.accuracy, lowest + LABEL_GAP)
        spread = "" if mark.spread is None else f" ± {mark.spread:.2f}"
        axes.annotate(
            f"{mark.name} {mark.accuracy:.2f}{spread}%",
            (mark.parameters, mark.accuracy),
            xytext=(mark.parameters * (1 + side * 0.03), height),
            ha=align,
            va="center",
            color=color,
            size=10,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )


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
        records.replace(path, figure.png)
    except OSError as error:
        raise UserError(f"{path}: cannot write the figure ({error.strerror})") from error
    return path


def _figure(dataset: str, title: str, height: float) -> NotebookFigure:
    """Return an empty figure, `height` inches high, whose title names the data set."""
    if dataset not in tuple(DATASETS):
        raise UserError(f"dataset: {dataset!r} is unknown, must be one of {', '.join(DATASETS)}")
    figure = NotebookFigure(figsize=(WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.12)
    lines = (DATASETS[dataset] + title).splitlines()
    text = "\n".join(textwrap.fill(line, TITLE_CHARACTERS) for line in lines)
    # Results on the digits must never be taken for CIFAR-10's, so their title is a signboard.
    board = {"facecolor": VERMILLION, "edgecolor": "none", "pad": 5}
    look = {"color": "white", "bbox": board} if dataset == "digits" else {}
    figure.suptitle(text, x=0.015, ha="left", **look)
    return figure


def _draw_image(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image)
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _check(name: str, array: Any, shape: tuple[int | str, ...], kind: type) -> None:
    """Check for a NumPy array of that kind and shape, where a word stands for any size but 0."""
    found, fits = type(array).__name__, False
    if isinstance(array, np.ndarray):
        found = f"{array.dtype} {array.shape}"
        pairs = zip(array.shape, shape, strict=False)
        fits = len(array.shape) == len(shape) and np.issubdtype(array.dtype, kind)
        fits = fits and all(size == wanted or (isinstance(wanted, str) and size) for size, wanted in pairs)
    if not fits:
        sizes = ", ".join(map(str, shape))
        raise UserError(f"{name}: must be an array of {kind.__name__} ({sizes}), got {found}")
