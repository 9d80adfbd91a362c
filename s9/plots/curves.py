"""Training curves, training speed, and accuracy against parameters."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator

from s9.plots.style import BLUE, GREEN, VERMILLION, NotebookFigure, new_figure, styled
from s9.records import Epoch

TRAIN = {"color": BLUE, "linestyle": "--", "marker": "o", "label": "train"}
TEST = {"color": VERMILLION, "linestyle": "-", "marker": "s", "label": "test"}
OURS = {"color": VERMILLION, "linestyle": "none", "marker": "s", "markersize": 7, "label": "this repository"}
PUBLIC = {"color": BLUE, "linestyle": "none", "marker": "o", "markersize": 6, "label": "public"}
OTHER_RULES = "outside the assignment's rules"
LABEL_GAP = 0.45  # least vertical distance of two labels, in percentage points
MARKERS = 25  # on a curve, about
BEHIND_TEXT = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}


class Point(NamedTuple):
    """A network in the comparison."""

    name: str
    parameters: int
    accuracy: float  # on the test set, percent
    spread: float | None = None  # its standard deviation over seeds, percentage points; None for a single run
    epochs: int | None = None  # None if not stated
    rules: bool = True  # whether it keeps the assignment's rules


@styled
def plot_metrics(history: Sequence[Epoch], dataset: str, model: str) -> NotebookFigure:
    """Draw loss, accuracy and learning rate over the epochs; the title gives the last epoch's test accuracy.

    The best epoch is not marked: choosing it would be selection on the test set.

    history: at least one row. dataset, model: their names, for the title.
    """
    epochs = [row.epoch for row in history]
    last = history[-1]
    title = f"{model}, {last.test_accuracy:.2f}% test accuracy after epoch {last.epoch}"
    figure = new_figure(dataset, title, height=6.5)
    panels = figure.subplot_mosaic([["loss", "accuracy"], ["rate", "rate"]], height_ratios=[2.2, 1])
    every = max(1, len(history) // MARKERS)
    for name, heading in (("loss", "Loss (lower is better)"), ("accuracy", "Accuracy, % (higher is better)")):
        for split, line in (("train", TRAIN), ("test", TEST)):
            values = [getattr(row, f"{split}_{name}") for row in history]
            panels[name].plot(epochs, values, **line, markevery=every)
        panels[name].set_title(heading)
        panels[name].legend()
    # Right of the last point, where it cannot cover a curve.
    look = {"textcoords": "offset points", "va": "bottom", "color": VERMILLION, "weight": "bold"}
    text, point = f"{last.test_accuracy:.2f}%\nlast epoch", (last.epoch, last.test_accuracy)
    panels["accuracy"].annotate(text, point, (8, 0), **look)
    rates = [row.learning_rate for row in history]
    panels["rate"].plot(epochs, rates, color=GREEN, marker="o", markevery=every)
    panels["rate"].set_title("Learning rate of SGD")
    for axes in panels.values():
        axes.set(xlabel="epoch", xlim=(epochs[0] - 0.5, epochs[-1] + max(0.5, 0.02 * len(epochs))))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


@styled
def plot_accuracy(
    ours: Sequence[Point], public: Sequence[Point], parameter_limit: int, accuracy_limit: float
) -> NotebookFigure:
    """Draw test accuracy on CIFAR-10 against the number of parameters.

    ours: this repository's networks; the spread over seeds is drawn as an error bar. public: published
    networks. Marks of networks with `rules=False` are hollow. parameter_limit: a network must have fewer.
    accuracy_limit: the assignment's target, percent.
    """
    figure = new_figure("cifar10", "test accuracy (last epoch unless noted) against parameters", height=6)
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.axvline(parameter_limit, color=GREEN, linestyle="--")
    axes.axhline(accuracy_limit, color=GREEN, linestyle=":")
    for marks, line, align in ((public, PUBLIC, "right"), (ours, OURS, "left")):
        for rules, look in ((True, {}), (False, {"markerfacecolor": "white"})):
            drawn = [mark for mark in marks if mark.rules == rules]
            if drawn:
                label = line["label"] if rules else f"{line['label']}, {OTHER_RULES}"
                values = [mark.parameters for mark in drawn], [mark.accuracy for mark in drawn]
                axes.plot(*values, **line | look | {"label": label})
        _label(axes, marks, line["color"], align)
    sizes = [mark.parameters for mark in (*ours, *public)]
    axes.set_xlim(min(sizes) / 4.3, max(*sizes, parameter_limit) * 2.6)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.minorticks_off()
    axes.set(xlabel="parameters (log scale)", ylabel="test accuracy, %")
    axes.margins(y=0.1)
    text = {"color": GREEN, "size": 10, "va": "top"}
    axes.text(parameter_limit, axes.get_ylim()[1], f" limit: fewer than {parameter_limit:,}", **text)
    axes.text(axes.get_xlim()[1], accuracy_limit, f"target: {accuracy_limit:g}% ", ha="right", **text)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _label(axes: Axes, marks: Sequence[Point], color: str, align: str) -> None:
    """Draw each mark's spread, and its name, accuracy and epochs beside it, moved up where labels overlap."""
    lowest, shift = -np.inf, 0.95 if align == "right" else 1.05
    for mark in sorted(marks, key=lambda mark: mark.accuracy):
        lowest = height = max(mark.accuracy, lowest + LABEL_GAP)
        spread = ""
        if mark.spread is not None:
            spread = f" ± {mark.spread:.2f}"
            axes.errorbar(mark.parameters, mark.accuracy, mark.spread, color=color, capsize=6)
        epochs = "" if mark.epochs is None else f", {mark.epochs} epochs"
        text, beside = f"{mark.name} {mark.accuracy:.2f}{spread}%{epochs}", mark.parameters * shift
        look = {"ha": align, "va": "center", "color": color, "size": 10, "bbox": BEHIND_TEXT}
        axes.annotate(text, (mark.parameters, mark.accuracy), (beside, height), **look)
