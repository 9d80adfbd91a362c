"""plot_misclassified: the mistakes it shows and the text below each."""

import numpy as np
import pytest
from figures import CLASSES, drawn, fits, make_images, make_predictions, visible

from s9.errors import UserError
from s9.plots import diagnostics, style


def named(cell):
    """The lines below an image: class and probability."""
    texts = [text.get_text() for text in cell.texts]
    return [f"{name} {percent}" for name, percent in zip(texts[::2], texts[1::2], strict=True)]


def test_misclassified_draws_even_steps_from_the_most_to_the_least_confident():
    confidences = [0, 0.6, 0.9, 0, 0.7, 0.8, 0.999, 0.55]
    figure = diagnostics.plot_misclassified(*make_predictions(confidences), CLASSES, "cifar10", count=3)
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
        "Shown: 3 evenly spaced ones, from the most to the least confident mistake\n"
        "Below each: the 3 most probable classes; the true class is green"
    )
    assert visible(figure) == cells


def test_misclassified_breaks_ties_by_index():
    _, values = drawn(
        diagnostics.plot_misclassified(*make_predictions([0.8, 0.7] * 50), CLASSES, "cifar10", count=100)
    )
    assert values == [*range(0, 100, 2), *range(1, 100, 2)]


def test_misclassified_draws_only_mistakes_with_their_own_texts():
    generator = np.random.default_rng(0)
    images, labels = make_images(200), generator.integers(0, 5, 200)
    probabilities = generator.dirichlet([1] * 5, 200)
    classes = [*CLASSES, "cat", "deer"]
    figure = diagnostics.plot_misclassified(images, labels, probabilities, classes, "cifar10")
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


@pytest.mark.parametrize("mistakes", [0, 1, 7])
def test_misclassified_draws_all_when_there_are_fewer(mistakes):
    figure = diagnostics.plot_misclassified(*make_predictions([0.9] * mistakes + [0] * 3), CLASSES, "cifar10")
    cells, values = drawn(figure)
    assert values == list(range(mistakes))
    assert ("Shown: all of them" in figure.get_suptitle()) == (mistakes > 0)
    assert visible(figure) == cells and fits(figure)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(4, dtype=int)}, r"labels: must be an array of integer \(5\), got int64 \(4,\)"),
        ({"labels": np.full(5, 3)}, "labels: must be 0 to 2, got 3 to 3"),
        ({"probabilities": np.zeros((5, 4))}, r"probabilities: .*\(5, 3\), got float64 \(5, 4\)"),
        ({"probabilities": np.full((5, 3), 2.0)}, "logits"),
        ({"images": make_images(5).astype(np.float32)}, "images: .* got float32"),
    ],
)
def test_misclassified_refuses_bad_input_in_one_line(change, message):
    images, labels, probabilities = make_predictions([0.9] * 5)
    given = {"images": images, "labels": labels, "probabilities": probabilities, "dataset": "cifar10"}
    with pytest.raises(UserError, match=message) as caught:
        diagnostics.plot_misclassified(**given | change, classes=CLASSES)
    assert "\n" not in str(caught.value)
