import io

import matplotlib.image
import numpy as np
import pytest
from figures import CLASSES, drawn, fits, make_images, make_predictions, visible

from model import S9Net
from s9.analysis import interpret
from s9.analysis.receptive_field import Row, receptive_field
from s9.errors import UserError
from s9.plots import diagnostics, style

# Augmentations


def test_augmentations_draw_what_each_transform_returns_on_the_same_images():
    def brighten(image):
        image += np.uint8(100)  # In place: it must get a copy.
        return image

    transforms = {"Brighter": brighten, "Original": lambda image: image}
    figure = diagnostics.plot_augmentations(make_images(8), transforms, "cifar10")
    cells, values = drawn(figure)
    assert values == [*range(100, 108), *range(8)]
    assert [cells[0].get_ylabel(), cells[8].get_ylabel()] == ["Brighter", "Original"]
    assert fits(figure)


# Receptive field


def squares(axes):
    """Sides and centres of the squares that a panel shows."""
    return [
        ((patch.get_height(), patch.get_width()), tuple(patch.get_center()[::-1])) for patch in axes.patches
    ]


def test_the_receptive_field_grows_around_the_middle_of_the_image():
    figure = diagnostics.plot_receptive_field(make_images(1)[0], receptive_field(S9Net()), "cifar10")
    sides = {axes.get_title(loc="left"): [side for (side, _), _ in squares(axes)] for axes in figure.axes}
    assert sides == {
        "C1: 9 x 9": [3, 5, 9],
        "C2: 15 x 15": [11, 13, 15],
        "C3: 27 x 27": [19, 23, 27],
        "C4: 51 x 51": [35, 43, 51],
    }
    assert {centre for axes in figure.axes for _, centre in squares(axes)} == {(16.5, 16.5)}
    assert "The image has 32 x 32 pixels; pixels beyond it are padding" in figure.get_suptitle()
    assert fits(figure)


def test_a_receptive_field_that_is_not_square_stays_inside_the_image():
    rows = [Row("C1.0", 1, 32, 1, 1, (3, 5), 32, 1), Row("add", 3, 32, 1, 1, (3, 7), 32, 1)]
    figure = diagnostics.plot_receptive_field(make_images(1)[0], rows, "cifar10")
    (panel,) = figure.axes
    assert panel.get_title(loc="left") == "C1: 3 x 7"
    assert [side for side, _ in squares(panel)] == [(3, 5), (3, 7)]
    assert "pale pixels are outside the receptive field" in figure.get_suptitle()


def test_the_receptive_field_leaves_pale_what_is_not_seen():
    image = np.full((32, 32, 3), 50, np.uint8)
    rows = [Row("C1.0", 1, 32, 1, 1, 9, 32, 1)]
    figure = diagnostics.plot_receptive_field(image, rows, "cifar10")
    (panel,) = figure.axes
    picture = matplotlib.image.imread(io.BytesIO(figure.png))
    to_pixel = panel.transData.transform
    for place, seen in (((16, 16), True), ((18.5, 13.5), True), ((25, 16), False), ((16, 8), False)):
        x, y = to_pixel(place)
        assert (picture[picture.shape[0] - int(y) - 1, int(x), 0] < 0.3) == seen, place


# Confusion


def test_confusion_counts_by_true_class_in_rows_and_gives_each_classs_accuracy():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    predicted = np.array([0, 0, 2, 2, 1, 1, 2, 0])
    figure = diagnostics.plot_confusion(labels, np.eye(3)[predicted] * 0.9, CLASSES, "cifar10")
    matrix, bars = figure.axes
    texts = [int(text.get_text()) for text in matrix.texts]
    assert texts == [2, 0, 2, 0, 2, 0, 1, 0, 1]
    assert [label.get_text() for label in matrix.get_yticklabels()] == CLASSES
    assert [label.get_text() for label in matrix.get_xticklabels()] == CLASSES
    assert [text.get_text() for text in bars.texts] == ["50.0%", "100.0%", "50.0%"]
    assert [bar.get_width() for bar in bars.patches] == [50, 100, 50]
    assert figure.get_suptitle() == (
        "CIFAR-10: 62.50% of 8 test images are classified correctly\n"
        "Most frequent mistake: airplane predicted as bird, 2 of 4"
    )


def test_confusion_without_a_mistake_or_an_image_of_a_class():
    labels = np.array([0, 0, 1])
    figure = diagnostics.plot_confusion(labels, np.eye(3)[labels], CLASSES, "cifar10")
    assert figure.get_suptitle() == "CIFAR-10: 100.00% of 3 test images are classified correctly"
    assert [text.get_text() for text in figure.axes[1].texts] == ["100.0%", "100.0%", "no images"]
    assert fits(figure)


# Misclassified images


def named(cell):
    """The lines below an image: class and probability."""
    texts = [text.get_text() for text in cell.texts]
    return [f"{name} {percent}" for name, percent in zip(texts[::2], texts[1::2], strict=True)]


def test_misclassified_draws_even_steps_from_the_most_to_the_least_confident(monkeypatch):
    monkeypatch.setattr(diagnostics, "SHOWN", 3)
    confidences = [0, 0.6, 0.9, 0, 0.7, 0.8, 0.999, 0.55]
    figure = diagnostics.plot_misclassified(*make_predictions(confidences), CLASSES, "cifar10")
    cells, values = drawn(figure)
    assert values == [6, 5, 7]  # ranks 0, 2 (2.5 rounded to even) and 5 of 6, 2, 5, 4, 1, 7
    assert [cell.get_title() for cell in cells] == ["true: airplane"] * 3
    assert [named(cell) for cell in cells] == [
        ["bird >99%", "airplane <1%", "automobile <1%"],
        ["bird 80%", "airplane 20%", "automobile <1%"],
        ["bird 55%", "airplane 45%", "automobile <1%"],
    ]
    for cell in cells:
        assert [text.get_color() for text in cell.texts[::2]] == [style.VERMILLION, style.GREEN, "black"]
    assert figure.get_suptitle() == (
        "CIFAR-10: 6 of 8 test images are misclassified\n"
        "Shown: 3 evenly spaced ones, from the most to the least confident mistake\n"
        "Below each: the 3 most probable classes; the true class is green"
    )
    assert visible(figure) == cells


def test_misclassified_breaks_ties_by_index():
    images, labels, probabilities = make_predictions([0.8, 0.7] * 10)
    _, values = drawn(diagnostics.plot_misclassified(images, labels, probabilities, CLASSES, "cifar10"))
    assert values == [*range(0, 20, 2), *range(1, 20, 2)]


@pytest.mark.parametrize("mistakes", [0, 1, 7])
def test_misclassified_draws_all_when_there_are_fewer(mistakes):
    figure = diagnostics.plot_misclassified(*make_predictions([0.9] * mistakes + [0] * 3), CLASSES, "cifar10")
    cells, values = drawn(figure)
    assert values == list(range(mistakes))
    assert ("Shown: all of them" in figure.get_suptitle()) == (mistakes > 0)
    assert visible(figure) == cells and fits(figure)


def test_predictions_of_other_classes_are_refused():
    images, labels, probabilities = make_predictions([0.9] * 5)
    with pytest.raises(UserError, match=r"probabilities must be \(5, 2\), .*, got \(5, 3\)$"):
        diagnostics.plot_misclassified(images, labels, probabilities, CLASSES[:2], "cifar10")


# Grad-CAM


def make_example(true, predicted, image=0, hot=(0, 0)):
    heat = np.zeros((32, 32), np.float32)
    heat[hot] = 1
    return interpret.Example(np.full((32, 32, 3), image, np.uint8), true, predicted, 0.7, heat, heat.T)


def test_grad_cam_draws_right_ones_once_and_wrong_ones_for_both_classes():
    right = [make_example(0, 0, 10), make_example(1, 1, 20)]
    wrong = [make_example(0, 2, 30, hot=(3, 9))]
    figure = diagnostics.plot_grad_cam(right, wrong, CLASSES, "cifar10")
    cells, _ = drawn(figure)
    assert [cell.get_title() for cell in cells] == [
        *("airplane 70%", "automobile 70%", "", ""),
        *("true: airplane", "bird 70%", ""),
    ]
    pictures = [cell.images[0].get_array() for cell in cells]
    assert [picture[5, 5, 0] for picture in pictures] == [10, 20, 5, 10, 30, 15, 15]
    assert [np.unravel_index(picture.sum(axis=2).argmax(), (32, 32)) for picture in pictures[-2:]] == [
        (3, 9),
        (9, 3),
    ]
    assert visible(figure) == cells
    assert fits(figure)


# Kernels


def test_kernels_and_answers_are_grey_at_0_and_reach_black_or_white_at_their_largest_value():
    kernels, answers = np.zeros((3, 3, 3, 3), np.float32), np.zeros((3, 8, 8), np.float32)
    kernels[1, 0, 0, 2], kernels[1, 1, 1, 1] = -0.5, 0.25
    kernels[2, :, 1, 1] = 4
    answers[1, 5, 6] = -9
    figure = diagnostics.plot_kernels(kernels, answers, "cifar10")
    cells = [axes for axes in figure.axes if axes.images]
    nothing, signed, bright, quiet, dark, _ = [cell.images[0].get_array() for cell in cells]
    assert (nothing == 0.5).all() and (quiet == 0.5).all()
    assert signed[0, 2].tolist() == [0, 0.5, 0.5] and signed[1, 1].tolist() == [0.5, 0.75, 0.5]
    assert bright[1, 1].tolist() == [1, 1, 1]
    assert dark[5, 6].tolist() == [0, 0, 0] and dark.sum() == 0.5 * (dark.size - 3)
    assert [cell.get_title() for cell in cells] == ["0.00", "0.50", "4.00", "", "", ""]
    assert "3 kernels of 3 x 3 pixels" in figure.get_suptitle()
    assert visible(figure) == cells


# Calibration


def test_calibration_draws_accuracy_confidence_and_counts_bin_by_bin():
    confidences = [0.99] * 3 + [0.97] + [0.7] * 2
    probabilities = np.array([[c, 1 - c, 0] for c in confidences])
    figure = diagnostics.plot_calibration(
        interpret.calibration(np.array([0, 0, 0, 1, 1, 1]), probabilities), "cifar10"
    )
    upper, lower = figure.axes
    heights = [bar.get_height() for bar in upper.patches]
    assert heights == [0] * 14 + [75]
    assert [text.get_text() for text in lower.texts] == ["0"] * 10 + ["2", "0", "0", "0", "4"]
    (lines,) = upper.collections
    drawn_lines = {round(line[0][0]): line[0][1] for line in lines.get_segments() if len(line)}
    assert drawn_lines == {67: pytest.approx(70), 93: pytest.approx(98.5)}
    # (4 x |0.75 - 0.985| + 2 x |0 - 0.7|) / 6
    assert "Expected calibration error 39.00%" in figure.get_suptitle()
    assert "mean confidence 89.0%, accuracy 50.0%" in figure.get_suptitle()
    assert fits(figure)
