"""Augmentations, receptive field, confusion matrix, misclassified images, Grad-CAM, kernels, calibration.

Arguments of all: images uint8 (n, height, width, 3); labels integers (n,) that index `classes`, the names;
probabilities floats (n, classes), 0 to 1, the largest of a row being the prediction; dataset its name.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest

import matplotlib
import numpy as np
from matplotlib.patches import Rectangle
from sklearn.metrics import confusion_matrix

from s9.analysis.interpret import BINS, Calibration, Example, check_predictions, even_steps
from s9.analysis.receptive_field import Row
from s9.plots.style import BLUE, GREEN, GREY, VERMILLION, NotebookFigure, draw_image, new_figure, styled

SHOWN, COLUMNS = 20, 5  # misclassified images, and how many in a row
LIKELIEST = 3  # classes listed under each of them
NUMBERED = 20  # classes, at most, whose numbers the confusion matrix shows; of more they would overlap
KERNEL_COLUMNS = 8


@styled
def plot_augmentations(
    images: np.ndarray, transforms: Mapping[str, Callable[[np.ndarray], np.ndarray]], dataset: str
) -> NotebookFigure:
    """Draw one row per transform and one column per image, the same images in every row.

    transforms: row title -> function from uint8 (height, width, 3) to the same shape and dtype. Each is
    called once per image, in reading order, on a copy; seed them for a reproducible figure.
    """
    rows = [(name, [change(image.copy()) for image in images], []) for name, change in transforms.items()]
    title = "augmentations, applied to the same images in every row"
    figure = new_figure(dataset, title, height=0.5 + 1.05 * len(rows))
    _draw_rows(figure, rows, len(images))
    return figure


def _draw_rows(
    figure: NotebookFigure, rows: Sequence[tuple[str, Sequence[np.ndarray], Sequence[str]]], columns: int
) -> np.ndarray:
    """Draw rows of at most `columns` images; returns their Axes (rows, columns).

    rows: name, written at the left; images; their titles, or none.
    """
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for cells, (name, images, titles) in zip(grid, rows, strict=True):
        cells[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for axes, image, title in zip_longest(cells, images, titles):
            if image is None:
                axes.set_axis_off()
            else:
                draw_image(axes, image)
                axes.set_title(title or "", loc="center", size=10)
    return grid


@styled
def plot_receptive_field(image: np.ndarray, rows: Sequence[Row], dataset: str) -> NotebookFigure:
    """Draw the receptive field after each layer, one panel per block, centred on an image.

    Pixels outside the largest receptive field are pale. A receptive field larger than the image covers
    padding. image: uint8 (height, width, 3). rows: from receptive_field(network); a layer's block is its name
    up to the first dot.
    """
    blocks = _blocks(rows)
    height, width = image.shape[:2]
    last = list(blocks.values())[-1][-1]
    title = f"receptive field after each block; {_size(last)} pixels after the last one"
    beyond = "pixels beyond it are padding"
    if max(last) <= min(height, width):
        beyond = "pale pixels are outside the receptive field"
    title += f"\nThe image has {_size((height, width))} pixels; {beyond}"
    figure = new_figure(dataset, title, height=3.7)
    panels = figure.subplots(1, len(blocks), squeeze=False)[0]
    middle = height // 2 + 0.5, width // 2 + 0.5
    # All panels show the same area, slightly larger than the largest square.
    reach = max(height, width, *(side for fields in blocks.values() for side in fields[-1])) / 2 + 1.5
    for axes, (block, fields) in zip(panels, blocks.items(), strict=True):
        extent = (0, width, height, 0)
        draw_image(axes, (image * 0.3 + 255 * 0.7).astype(np.uint8), extent=extent)
        seen = axes.imshow(image, extent=extent)
        axes.set_facecolor(GREY)
        for tall, wide in fields:
            corner = middle[1] - wide / 2, middle[0] - tall / 2
            linewidth = 2.5 if (tall, wide) == fields[-1] else 1
            look = {"fill": False, "edgecolor": VERMILLION, "linewidth": linewidth}
            square = axes.add_patch(Rectangle(corner, wide, tall, **look))
        seen.set_clip_path(square)
        steps = ", ".join(str(tall) if tall == wide else f"{tall} x {wide}" for tall, wide in fields)
        axes.set_xlabel(f"layer by layer: {steps}", size=10)
        axes.set_title(f"{block}: {_size(fields[-1])}")
        axes.set(xlim=(middle[1] - reach, middle[1] + reach), ylim=(middle[0] + reach, middle[0] - reach))
    return figure


def _blocks(rows: Sequence[Row]) -> dict[str, list[tuple[int, int]]]:
    """By block, the receptive fields (height, width) after its layers: {"C1": [(3, 3), (5, 5)]}."""
    blocks: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        # Names of additions and concatenations have no dot: they belong to the block before them.
        block = row.layer.split(".")[0] if "." in row.layer or not blocks else list(blocks)[-1]
        field = row.r_out if isinstance(row.r_out, tuple) else (row.r_out, row.r_out)
        blocks[block] = sorted({*blocks.get(block, []), field})
    return blocks


def _size(sides: tuple[int, int]) -> str:
    return f"{sides[0]} x {sides[1]}"


@styled
def plot_confusion(
    labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], dataset: str
) -> NotebookFigure:
    """Draw the confusion matrix and, beside it, the accuracy of each class."""
    check_predictions(labels, probabilities, len(classes))
    counts = confusion_matrix(labels, probabilities.argmax(axis=1), labels=np.arange(len(classes)))
    images, right = counts.sum(axis=1), counts.diagonal()
    mistakes = counts - np.diag(right)
    accuracy = right / np.maximum(images, 1)
    title = f"{right.sum() / len(labels):.2%} of {len(labels):,} test images are classified correctly"
    if mistakes.any():
        true, taken = np.unravel_index(mistakes.argmax(), mistakes.shape)
        title += f"\nMost frequent mistake: {classes[true]} predicted as {classes[taken]}, "
        title += f"{mistakes[true, taken]:,} of {images[true]:,}"
    figure = new_figure(dataset, title, height=6.6)
    matrix, bars = figure.subplots(1, 2, width_ratios=[2.3, 1])
    # Mistakes have a colour scale of their own: on that of the diagonal they would all be pale.
    shades = matplotlib.colormaps["Oranges"](0.6 * mistakes / max(1, mistakes.max()))
    np.einsum("iij->ij", shades)[:] = matplotlib.colormaps["Blues"](0.6 * accuracy)
    draw_image(matrix, shades)
    few = len(classes) <= NUMBERED
    for (row, column), count in np.ndenumerate(counts) if few else ():
        color = "#999999" if count == 0 else "black"
        weight = "bold" if row == column else "normal"
        matrix.text(column, row, f"{count:,}", ha="center", va="center", size=10, color=color, weight=weight)
    matrix.set_xticks(range(len(classes)), classes, rotation=40, ha="right", rotation_mode="anchor")
    matrix.set_yticks(range(len(classes)), classes)
    matrix.set(xlabel="predicted class", ylabel="true class")
    matrix.tick_params(length=0, labelsize=11 if few else 4)
    bars.barh(range(len(classes)), 100 * accuracy, color=BLUE, height=0.7)
    for row, share in enumerate(accuracy if few else ()):
        text = f"{share:.1%}" if images[row] else "no images"
        bars.text(100 * share + 3, row, text, va="center", size=10)
    bars.set(title="Accuracy of each class, %", xlim=(0, 135), xticks=[0, 50, 100], yticks=[])
    bars.set_ylim(matrix.get_ylim())
    bars.spines.bottom.set_bounds(0, 100)
    bars.grid(False, axis="y")
    return figure


@styled
def plot_misclassified(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], dataset: str
) -> NotebookFigure:
    """Draw misclassified test images with the true class and the three most probable classes.

    The sample is systematic: the mistakes are sorted by the probability of the predicted class, from high to
    low (ties by index), and SHOWN evenly spaced ones are drawn, including both ends, or all if there are
    fewer. images: the whole test set without augmentation.
    """
    check_predictions(labels, probabilities, len(classes))
    wrong = probabilities.argmax(axis=1) != labels
    shown = even_steps(probabilities.max(axis=1), wrong, SHOWN)
    title = f"{wrong.sum():,} of {len(images):,} test images are misclassified"
    if len(shown) == 0:
        figure = new_figure(dataset, title, height=1.2)
        figure.subplots().set_axis_off()  # the layout places a title only above axes
        return figure
    sample = "all of them" if len(shown) == wrong.sum() else f"{len(shown)} evenly spaced ones"
    title += f"\nShown: {sample}, from the most to the least confident mistake"
    title += f"\nBelow each: the {LIKELIEST} most probable classes; the true class is green"
    lines = [shown[start : start + COLUMNS] for start in range(0, len(shown), COLUMNS)]
    rows = [("", images[line], [f"true: {classes[label]}" for label in labels[line]]) for line in lines]
    figure = new_figure(dataset, title, height=0.8 + 2.45 * len(rows))
    cells = _draw_rows(figure, rows, COLUMNS)
    for index, axes in zip(shown, cells.flat, strict=False):
        likeliest = np.argsort(-probabilities[index], kind="stable")[:LIKELIEST]
        for line, label in enumerate(likeliest):
            right = label == labels[index]
            look = {"color": GREEN if right else VERMILLION if line == 0 else "black", "size": 10}
            look |= {"weight": "bold" if right else "normal", "transform": axes.transAxes, "va": "top"}
            axes.text(0, -0.04 - 0.12 * line, classes[label], ha="left", **look)
            axes.text(1, -0.04 - 0.12 * line, _percent(probabilities[index, label]), ha="right", **look)
    return figure


def _percent(probability: float) -> str:
    """Rounded to whole percent, except that 99.7% does not become 100%, nor 0.3% become 0%."""
    return ">99%" if probability >= 0.995 else "<1%" if probability < 0.005 else f"{probability:.0%}"


@styled
def plot_grad_cam(
    right: Sequence[Example], wrong: Sequence[Example], classes: Sequence[str], dataset: str
) -> NotebookFigure:
    """Draw Grad-CAM maps of correct and wrong predictions.

    right, wrong: from interpret.explained(), not both empty; the network's classes are `classes`.
    """
    rows = []
    if right:
        named = [_named(it, classes) for it in right]
        rows.append(("correct", [it.image for it in right], named))
        rows.append(("Grad-CAM of\nthis class", [_heated(it.image, it.predicted_map) for it in right], []))
    if wrong:
        true, named = [f"true: {classes[it.true]}" for it in wrong], [_named(it, classes) for it in wrong]
        predicted_maps = [_heated(it.image, it.predicted_map) for it in wrong]
        rows.append(("wrong", [it.image for it in wrong], true))
        rows.append(("Grad-CAM of the\npredicted class", predicted_maps, named))
        rows.append(("Grad-CAM of the\ntrue class", [_heated(it.image, it.true_map) for it in wrong], []))
    title = "Grad-CAM; yellow pixels raise the score of the class"
    title += "\nPredictions at even steps from the most to the least confident"
    figure = new_figure(dataset, title, height=0.7 + 1.6 * len(rows))
    _draw_rows(figure, rows, max(len(right), len(wrong)))
    return figure


@styled
def plot_photo(
    image: np.ndarray, maps: np.ndarray, classes: Sequence[str], probabilities: np.ndarray, dataset: str
) -> NotebookFigure:
    """Draw a photo as the network gets it, and beside it the Grad-CAM map of each of some classes.

    image: uint8 (height, width, 3). maps: floats (n, height, width), 0 to 1, from interpret.grad_cam().
    classes, probabilities: names and probabilities of these n classes. dataset: that the network was trained
    on.
    """
    figure = new_figure(dataset, "your photo; yellow pixels raise the score of the class", height=2.9)
    titles = [f"{name} {_percent(share)}" for name, share in zip(classes, probabilities, strict=True)]
    pictures = [image, *(_heated(image, heat) for heat in maps)]
    _draw_rows(figure, [("", pictures, ["input of the network", *titles])], len(pictures))
    return figure


def _named(example: Example, classes: Sequence[str]) -> str:
    return f"{classes[example.predicted]} {_percent(example.probability)}"


def _heated(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The image in grey, blended with the heat map: 0 is black, 1 is yellow."""
    grey = image.mean(axis=2, keepdims=True)
    return (0.5 * grey + 127.5 * matplotlib.colormaps["inferno"](heat)[..., :3]).astype(np.uint8)


@styled
def plot_kernels(kernels: np.ndarray, answers: np.ndarray, dataset: str) -> NotebookFigure:
    """Draw the kernels of the first layer as RGB images, and below each its response to an image.

    Grey is 0. Each picture is scaled to its largest magnitude; a kernel's is its title.

    kernels, answers: floats (n, 3, height, width) and floats (n, height, width) of the responses, from
    interpret.first_layer().
    """
    title = f"first layer: {len(kernels)} kernels of {_size(kernels.shape[2:])} pixels"
    title += "\nBelow each, its response to a test image; grey is 0, the number its largest |weight|"
    rows = []
    for start in range(0, len(kernels), KERNEL_COLUMNS):
        line = slice(start, start + KERNEL_COLUMNS)
        above = [_around_grey(kernel) for kernel in kernels[line].transpose(0, 2, 3, 1)]
        below = [_around_grey(answer[..., None].repeat(3, axis=2)) for answer in answers[line]]
        largest = [f"{np.abs(kernel).max():.2f}" for kernel in kernels[line]]
        rows += [("", above, largest), ("", below, [])]
    figure = new_figure(dataset, title, height=0.8 + 1.3 * len(rows))
    _draw_rows(figure, rows, KERNEL_COLUMNS)
    return figure


def _around_grey(values: np.ndarray) -> np.ndarray:
    """Scaled to 0..1, where 0 becomes 0.5 and the largest magnitude 0 or 1."""
    return 0.5 + 0.5 * values / max(np.abs(values).max(), np.finfo(values.dtype).tiny)


@styled
def plot_calibration(calibration: Calibration, dataset: str) -> NotebookFigure:
    """Draw accuracy against confidence, and the number of images in each bin; see interpret.calibration()."""
    counts, confidence, accuracy = calibration
    sure, right = (np.nansum(counts * values) / counts.sum() for values in (confidence, accuracy))
    title = f"mean confidence {sure:.1%}, accuracy {right:.1%}"
    title += f"\nExpected calibration error {calibration.error:.2%}"
    figure = new_figure(dataset, title, height=6.6)
    upper, lower = figure.subplots(2, 1, height_ratios=[3, 1.1], sharex=True)
    width = 100 / BINS
    lefts = width * np.arange(BINS)
    look = {"width": width, "align": "edge", "edgecolor": "white", "color": BLUE}
    upper.bar(lefts, 100 * np.nan_to_num(accuracy), **look, label="accuracy")
    upper.hlines(
        100 * confidence, lefts, lefts + width, color=VERMILLION, linewidth=3, label="mean confidence"
    )
    upper.plot([0, 100], [0, 100], color="black", linestyle=":", label="perfect calibration")
    upper.set(ylim=(0, 102), ylabel="accuracy, %")
    heading = f"Calibration error: |accuracy - confidence|, mean over {BINS} bins weighted by images"
    upper.set_title(f"{heading} (Guo et al., 2017)", size=11)
    upper.legend(loc="upper left", reverse=True)
    bars = lower.bar(lefts, counts, **look)
    lower.bar_label(bars, [f"{count:,}" for count in counts], padding=2, size=10)
    lower.set(title="Images in each bin", ylim=(0, 1.3 * counts.max()), yticks=[])
    lower.set(xlabel="confidence (probability of the predicted class), %", xlim=(0, 100))
    lower.grid(False)
    return figure
