"""Draws the figures that compare: the curves of a training, speed, networks with one another.

Knows nothing of training: records come in, figures in the style of style.py go out.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from s9.errors import UserError
from s9.plots.style import BLUE, GREEN, VERMILLION, NotebookFigure, new_figure, styled
from s9.records import Epoch

TRAIN = {"color": BLUE, "linestyle": "--", "marker": "o", "label": "train"}
TEST = {"color": VERMILLION, "linestyle": "-", "marker": "s", "label": "test"}
OURS = {"color": VERMILLION, "linestyle": "none", "marker": "s", "markersize": 7, "label": "here"}
PUBLIC = {"color": BLUE, "linestyle": "none", "marker": "o", "markersize": 6, "label": "public"}
PARAMETER_TICKS = [digit * 10**power for power in range(3, 10) for digit in (1, 2, 5)]
LABEL_GAP = 0.45  # percent between the accuracies that labels stand at
MARKERS = 25  # on a line, about, however many epochs there are


class Point(NamedTuple):
    """A network among others: its size, and its test accuracy in percent."""

    name: str
    parameters: int
    accuracy: float
    spread: float | None = None
    """Standard deviation over seeds; None of a single run, or if it is not known."""


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
    figure = new_figure(dataset, title, height=6.5)
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
    figure = new_figure("cifar10", title, height=3.4)
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
    ours: Sequence[Point], public: Sequence[Point], parameter_limit: int, accuracy_limit: float
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
    figure = new_figure("cifar10", "test accuracy against parameters", height=6)
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


def _label(axes: Axes, marks: Sequence[Point], color: str, align: str) -> None:
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
