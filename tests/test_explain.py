import io
from itertools import pairwise

import matplotlib.image
import numpy as np
import pytest
from figures import CLASSES, drawn, fits, make_images, make_predictions, visible

import analysis
import explain
import style
from errors import UserError
from model import NETWORKS, S9Net, receptive_field
from receptive_field import Row

# Augmentations


def test_augmentations_draw_what_each_transform_returns_on_the_same_images():
    transforms = {"Original": lambda image: image, "Brighter": lambda image: image + np.uint8(100)}
    figure = explain.plot_augmentations(make_images(8), transforms, "cifar10")
    cells, values = drawn(figure)
    assert values == [*range(8), *range(100, 108)]
    assert [cells[0].get_ylabel(), cells[8].get_ylabel()] == ["Original", "Brighter"]
    assert fits(figure)


def test_augmentations_in_place_do_not_change_the_images():
    def blacken(image):
        image[:] = 0
        return image

    images = make_images(3)
    _, values = drawn(explain.plot_augmentations(images, {"A": blacken, "B": lambda image: image}, "cifar10"))
    assert values == [0, 0, 0, 0, 1, 2]
    assert images[2].max() == 2


@pytest.mark.parametrize(
    "wrong", [lambda image: image / 255, lambda image: image[:16], lambda image: {"image": image}]
)
def test_augmentations_name_the_transform_that_returns_something_else(wrong):
    with pytest.raises(UserError, match=r"what 'Odd' returns: must be an array of uint8 \(32, 32, 3\), got "):
        explain.plot_augmentations(make_images(2), {"Odd": wrong}, "cifar10")


@pytest.mark.parametrize(
    "images",
    [
        make_images(2) / 255,
        make_images(2)[0],
        make_images(2).transpose(0, 3, 1, 2),
        make_images(0),
        [[1]],
        None,
    ],
)
def test_augmentations_refuse_other_images(images):
    with pytest.raises(UserError, match=r"images: must be an array of uint8 \(n, height, width, 3\), got "):
        explain.plot_augmentations(images, {"Original": lambda image: image}, "cifar10")


def test_augmentations_refuse_no_transform():
    with pytest.raises(UserError, match="transforms"):
        explain.plot_augmentations(make_images(2), {}, "cifar10")


# Misclassified


def named(cell):
    """What stands under an image, line by line: pairs of texts, the class and its probability."""
    texts = [text.get_text() for text in cell.texts]
    return [f"{name} {percent}" for name, percent in zip(texts[::2], texts[1::2], strict=True)]


def test_misclassified_draws_even_steps_from_the_most_to_the_least_confident():
    confidences = [0, 0.6, 0.9, 0, 0.7, 0.8, 0.999, 0.55]
    figure = explain.plot_misclassified(*make_predictions(confidences), CLASSES, "cifar10", count=3)
    cells, values = drawn(figure)
    assert values == [6, 5, 7]  # ranks 0, 2 (2.5 rounded to even) and 5 of 6, 2, 5, 4, 1, 7
    assert [cell.get_title() for cell in cells] == ["true: airplane"] * 3
    assert [named(cell) for cell in cells] == [
        ["bird >99%", "airplane <1%", "automobile <1%"],
        ["bird 80%", "airplane 20%", "automobile <1%"],
        ["bird 55%", "airplane 45%", "automobile <1%"],
    ]
    assert figure.get_suptitle() == (
        "CIFAR-10: 6 of 8 test images are misclassified\n"
        "Shown: 3 at even steps, from the most to the least confident mistake\n"
        "Under each: the classes that the model finds likeliest; green is the true one"
    )
    assert visible(figure) == cells


def test_misclassified_breaks_ties_by_index():
    _, values = drawn(
        explain.plot_misclassified(*make_predictions([0.8, 0.7] * 50), CLASSES, "cifar10", count=100)
    )
    assert values == [*range(0, 100, 2), *range(1, 100, 2)]


def test_misclassified_draws_only_mistakes_with_their_own_texts():
    generator = np.random.default_rng(0)
    images, labels = make_images(200), generator.integers(0, 5, 200)
    probabilities = generator.dirichlet([1] * 5, 200)
    classes = [*CLASSES, "cat", "deer"]
    figure = explain.plot_misclassified(images, labels, probabilities, classes, "cifar10")
    cells, values = drawn(figure)
    assert len(set(values)) == 20
    for cell, index in zip(cells, values, strict=True):
        predicted = probabilities[index].argmax()
        assert predicted != labels[index]
        assert cell.get_title() == f"true: {classes[labels[index]]}"
        likeliest = sorted(range(5), key=lambda label, index=index: -probabilities[index, label])[:3]
        assert [text.split()[0] for text in named(cell)] == [classes[label] for label in likeliest]
        colors = [text.get_color() for text in cell.texts[::2]]
        expected = [style.VERMILLION, "black", "black"]
        if labels[index] in likeliest:
            expected[likeliest.index(labels[index])] = style.GREEN
        assert colors == expected
    shown = probabilities[values].max(axis=1)
    assert list(shown) == sorted(shown, reverse=True)
    mistakes = probabilities.max(axis=1)[probabilities.argmax(axis=1) != labels]
    assert (shown[0], shown[-1]) == (mistakes.max(), mistakes.min())
    assert fits(figure)


def test_misclassified_longest_texts_stay_apart():
    images, labels, probabilities = make_predictions([0.999] * 5)
    classes = ["airplane", "ship", "automobile"]
    figure = explain.plot_misclassified(images, labels, probabilities, classes, "cifar10")
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for axes in figure.axes for text in axes.texts[:2]]
    assert all(right.x0 - left.x1 > 10 for left, right in pairwise(boxes))
    assert fits(figure)


@pytest.mark.parametrize("mistakes", [1, 4, 7])
def test_misclassified_draws_all_when_there_are_fewer(mistakes):
    figure = explain.plot_misclassified(*make_predictions([0.9] * mistakes + [0] * 3), CLASSES, "cifar10")
    cells, values = drawn(figure)
    assert values == list(range(mistakes))
    assert "Shown: all of them" in figure.get_suptitle()
    assert visible(figure) == cells


def test_misclassified_without_a_mistake_says_so():
    figure = explain.plot_misclassified(*make_predictions([0] * 5), CLASSES, "cifar10")
    assert (
        figure.get_suptitle() == "CIFAR-10: 0 of 5 test images are misclassified\nThere is no mistake to show"
    )
    assert visible(figure) == []
    assert fits(figure)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(4, dtype=int)}, r"labels: must be an array of integer \(5\), got int64 \(4,\)"),
        ({"labels": np.zeros(5)}, "labels: .* got float64"),
        ({"labels": [0, 0, 0, 0, 0]}, "labels: .* got list"),
        ({"labels": np.full(5, 3)}, "labels: must be 0 to 2, got 3 to 3"),
        ({"labels": np.full(5, -1)}, "labels: must be 0 to 2, got -1 to -1"),
        ({"probabilities": np.zeros((5, 4))}, r"probabilities: .*\(5, 3\), got float64 \(5, 4\)"),
        ({"probabilities": np.zeros((5, 3), dtype=int)}, "probabilities: .* got int64"),
        ({"probabilities": np.full((5, 3), 2.0)}, "logits"),
        ({"probabilities": np.full((5, 3), np.nan)}, "logits"),
        ({"images": make_images(5).astype(np.float32)}, "images: .* got float32"),
        ({"count": 1}, "count: it is 1"),
        ({"dataset": "mnist"}, "dataset: 'mnist' is unknown, must be one of cifar10, digits"),
    ],
)
def test_misclassified_refuses_bad_input_in_one_line(change, message):
    images, labels, probabilities = make_predictions([0.9] * 5)
    given = {"images": images, "labels": labels, "probabilities": probabilities, "dataset": "cifar10"}
    with pytest.raises(UserError, match=message) as caught:
        explain.plot_misclassified(**given | change, classes=CLASSES)
    assert "\n" not in str(caught.value)


# Receptive field


def squares(axes):
    """Sides and centres of the squares that a panel shows."""
    return [
        ((patch.get_height(), patch.get_width()), tuple(patch.get_center()[::-1])) for patch in axes.patches
    ]


def test_the_receptive_field_grows_around_the_middle_of_the_image():
    figure = explain.plot_receptive_field(make_images(1)[0], receptive_field(S9Net()), "cifar10")
    sides = {axes.get_title(loc="left"): [side for (side, _), _ in squares(axes)] for axes in figure.axes}
    assert sides == {
        "C1: 9 x 9": [3, 5, 9],
        "C2: 15 x 15": [11, 13, 15],
        "C3: 27 x 27": [19, 23, 27],
        "C4: 51 x 51": [35, 43, 51],
    }
    assert {centre for axes in figure.axes for _, centre in squares(axes)} == {(16.5, 16.5)}
    assert "The image has 32 x 32; what is seen beyond it is padding" in figure.get_suptitle()
    assert fits(figure)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_receptive_field_ends_as_the_audit_measures_it(name):
    rows = receptive_field(NETWORKS[name]())
    *_, last = explain.plot_receptive_field(make_images(1)[0], rows, "digits").axes
    assert squares(last)[-1][0] == (rows[-1].r_out,) * 2
    left, right = last.get_xlim()
    bottom, top = last.get_ylim()
    assert right - left == bottom - top > rows[-1].r_out


def test_a_receptive_field_that_is_not_square_stays_inside_the_image():
    rows = [Row("C1.0", 1, 32, 1, 1, (3, 5), 32, 1), Row("add", 3, 32, 1, 1, (3, 7), 32, 1)]
    figure = explain.plot_receptive_field(make_images(1)[0], rows, "cifar10")
    (panel,) = figure.axes
    assert panel.get_title(loc="left") == "C1: 3 x 7"
    assert [side for side, _ in squares(panel)] == [(3, 5), (3, 7)]
    assert "pale: not seen" in figure.get_suptitle()


def test_the_receptive_field_leaves_pale_what_is_not_seen():
    image = np.full((32, 32, 3), 50, np.uint8)
    rows = [Row("C1.0", 1, 32, 1, 1, 9, 32, 1)]
    figure = explain.plot_receptive_field(image, rows, "cifar10")
    (panel,) = figure.axes
    picture = matplotlib.image.imread(io.BytesIO(figure.png))
    to_pixel = panel.transData.transform
    for place, seen in (((16, 16), True), ((18.5, 13.5), True), ((25, 16), False), ((16, 8), False)):
        x, y = to_pixel(place)
        assert (picture[picture.shape[0] - int(y) - 1, int(x), 0] < 0.3) == seen, place


@pytest.mark.parametrize("rows", [[], None, [("C1.0", 3)], "C1"])
def test_the_receptive_field_refuses_other_rows(rows):
    with pytest.raises(UserError, match="rows: must be those that receptive_field"):
        explain.plot_receptive_field(make_images(1)[0], rows, "cifar10")


# Confusion


def test_confusion_counts_by_true_class_in_rows_and_gives_each_classs_accuracy():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    predicted = np.array([0, 0, 2, 2, 1, 1, 2, 0])
    figure = explain.plot_confusion(labels, np.eye(3)[predicted] * 0.9, CLASSES, "cifar10")
    matrix, bars = figure.axes
    texts = [int(text.get_text()) for text in matrix.texts]
    assert texts == [2, 0, 2, 0, 2, 0, 1, 0, 1]
    assert [label.get_text() for label in matrix.get_yticklabels()] == CLASSES
    assert [label.get_text() for label in matrix.get_xticklabels()] == CLASSES
    assert [text.get_text() for text in bars.texts] == ["50.0%", "100.0%", "50.0%"]
    assert [bar.get_width() for bar in bars.patches] == [50, 100, 50]
    assert figure.get_suptitle() == (
        "CIFAR-10: 62.50% of 8 test images are right\n"
        "The most frequent mistake: airplane taken for bird, 2 of 4"
    )


def test_confusion_bars_stand_beside_their_rows():
    labels = np.arange(300) % 3
    figure = explain.plot_confusion(labels, np.eye(3)[labels], CLASSES, "cifar10")
    matrix, bars = figure.axes
    figure.draw_without_rendering()
    for row, bar in enumerate(bars.patches):
        _, height = bars.transData.transform((0, bar.get_y() + bar.get_height() / 2))
        assert height == pytest.approx(matrix.transData.transform((0, row))[1])


def test_confusion_without_a_mistake_or_an_image_of_a_class():
    labels = np.array([0, 0, 1])
    figure = explain.plot_confusion(labels, np.eye(3)[labels], CLASSES, "cifar10")
    assert figure.get_suptitle() == "CIFAR-10: 100.00% of 3 test images are right"
    assert [text.get_text() for text in figure.axes[1].texts] == ["100.0%", "100.0%", "no images"]
    assert fits(figure)


# Grad-CAM


def make_example(true, predicted, image=0, hot=(0, 0)):
    heat = np.zeros((32, 32), np.float32)
    heat[hot] = 1
    return analysis.Example(np.full((32, 32, 3), image, np.uint8), true, predicted, 0.7, heat, heat.T)


def test_grad_cam_draws_right_ones_once_and_wrong_ones_for_both_classes():
    right = [make_example(0, 0, 10), make_example(1, 1, 20)]
    wrong = [make_example(0, 2, 30, hot=(3, 9))]
    figure = explain.plot_grad_cam(right, wrong, CLASSES, "cifar10")
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


@pytest.mark.parametrize(("right", "wrong", "rows"), [(6, 0, 2), (0, 6, 3)])
def test_grad_cam_of_right_or_of_wrong_ones_alone(right, wrong, rows):
    figure = explain.plot_grad_cam(
        [make_example(0, 0)] * right, [make_example(0, 1)] * wrong, CLASSES, "digits"
    )
    assert len(figure.axes) == 6 * rows
    assert fits(figure)


@pytest.mark.parametrize(
    ("right", "message"), [([], "no prediction to draw"), ([make_example(3, 3)], "0 to 2")]
)
def test_grad_cam_refuses_nothing_and_nameless_classes(right, message):
    with pytest.raises(UserError, match=message):
        explain.plot_grad_cam(right, [], CLASSES, "cifar10")


# Kernels


def test_kernels_are_grey_at_0_and_reach_black_or_white_at_their_largest_weight():
    kernels = np.zeros((3, 3, 3, 3), np.float32)
    kernels[1, 0, 0, 2], kernels[1, 1, 1, 1] = -0.5, 0.25
    kernels[2, :, 1, 1] = 4
    figure = explain.plot_kernels(kernels, "cifar10")
    cells = [axes for axes in figure.axes if axes.images]
    nothing, signed, bright = [cell.images[0].get_array() for cell in cells]
    assert (nothing == 0.5).all()
    assert signed[0, 2].tolist() == [0, 0.5, 0.5] and signed[1, 1].tolist() == [0.5, 0.75, 0.5]
    assert bright[1, 1].tolist() == [1, 1, 1]
    assert [cell.get_xlabel() for cell in cells] == ["0.00", "0.50", "4.00"]
    assert "3 kernels of 3 x 3 pixels" in figure.get_suptitle()
    assert visible(figure) == cells


@pytest.mark.parametrize(
    ("kernels", "message"),
    [
        (np.zeros((16, 1, 3, 3)), r"kernels: must be an array of floating \(n, 3, height, width\)"),
        (np.full((16, 3, 3, 3), np.nan), "not finite"),
    ],
)
def test_kernels_refuse_other_channels_and_a_diverged_network(kernels, message):
    with pytest.raises(UserError, match=message):
        explain.plot_kernels(kernels, "cifar10")


# Calibration


def test_calibration_draws_accuracy_confidence_and_counts_bin_by_bin():
    confidences = [0.99] * 3 + [0.97] + [0.7] * 2
    probabilities = np.array([[c, 1 - c, 0] for c in confidences])
    figure = explain.plot_calibration(
        analysis.calibration(np.array([0, 0, 0, 1, 1, 1]), probabilities), "cifar10"
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
    assert "the model is 89.0% sure on average, and right in 50.0%" in figure.get_suptitle()
    assert fits(figure)
