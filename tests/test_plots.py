from itertools import combinations, pairwise
from types import SimpleNamespace

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest

import plots
from errors import UserError

CLASSES = ["airplane", "automobile", "bird"]


def make_history(count, best=None):
    """Accuracy rises to 60 + count, except for a `best` epoch, which has 99."""
    return [
        SimpleNamespace(
            epoch=epoch,
            learning_rate=0.1 / epoch,
            train_loss=2 / epoch,
            train_accuracy=50.0 + epoch / 2,
            test_loss=1.5 / epoch,
            test_accuracy=99.0 if epoch == best else 60.0 + epoch,
            seconds=1.0,
        )
        for epoch in range(1, count + 1)
    ]


def make_images(count):
    """Image i is filled with the value i."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 32, 32, 3)).copy()


def make_predictions(confidences):
    """All true classes are airplane; image i is taken for a bird at confidences[i], rightly where it is 0."""
    birds = np.array(confidences, dtype=np.float32)
    probabilities = np.stack([1 - birds, np.zeros_like(birds), birds], axis=1)
    return make_images(len(birds)), np.zeros(len(birds), dtype=np.int64), probabilities


def drawn(figure):
    """The axes that hold an image, and the images' first values."""
    cells = [axes for axes in figure.axes if axes.images]
    return cells, [int(axes.images[0].get_array()[0, 0, 0]) for axes in cells]


def visible(figure):
    return [axes for axes in figure.axes if axes.axison]


def fits(figure):
    """Whether nothing that is drawn sticks out of the figure."""
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


# Augmentations


def test_augmentations_draw_what_each_transform_returns_on_the_same_images():
    transforms = {"Original": lambda image: image, "Brighter": lambda image: image + np.uint8(100)}
    figure = plots.plot_augmentations(make_images(8), transforms, "cifar10")
    cells, values = drawn(figure)
    assert values == [*range(8), *range(100, 108)]
    assert [cells[0].get_ylabel(), cells[8].get_ylabel()] == ["Original", "Brighter"]
    assert fits(figure)


def test_augmentations_in_place_do_not_change_the_images():
    def blacken(image):
        image[:] = 0
        return image

    images = make_images(3)
    _, values = drawn(plots.plot_augmentations(images, {"A": blacken, "B": lambda image: image}, "cifar10"))
    assert values == [0, 0, 0, 0, 1, 2]
    assert images[2].max() == 2


@pytest.mark.parametrize(
    "wrong", [lambda image: image / 255, lambda image: image[:16], lambda image: {"image": image}]
)
def test_augmentations_name_the_transform_that_returns_something_else(wrong):
    with pytest.raises(UserError, match=r"what 'Odd' returns: must be an array of uint8 \(32, 32, 3\), got "):
        plots.plot_augmentations(make_images(2), {"Odd": wrong}, "cifar10")


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
        plots.plot_augmentations(images, {"Original": lambda image: image}, "cifar10")


def test_augmentations_refuse_no_transform():
    with pytest.raises(UserError, match="transforms"):
        plots.plot_augmentations(make_images(2), {}, "cifar10")


# Metrics


@pytest.mark.parametrize("count", [1, 2, 30, 300])
def test_metrics_draw_exactly_the_history(count):
    history = make_history(count)
    figure = plots.plot_metrics(history, "cifar10", "S9")
    lines = [line for axes in figure.axes for line in axes.lines]
    columns = ["train_loss", "test_loss", "train_accuracy", "test_accuracy", "learning_rate"]
    assert len(lines) == len(columns)
    for line, column in zip(lines, columns, strict=True):
        assert list(line.get_xdata()) == list(range(1, count + 1))
        assert list(line.get_ydata()) == [getattr(row, column) for row in history]
    assert [line.get_label() for line in lines[:4]] == ["train", "test", "train", "test"]


@pytest.mark.parametrize("count", [1, 2, 30, 300])
def test_metrics_epoch_ticks_are_whole_and_texts_are_inside(count):
    figure = plots.plot_metrics(make_history(count), "cifar10", "S9")
    assert fits(figure)
    for axes in figure.axes:
        left, right = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if left <= tick <= right]
        assert ticks and all(tick == round(tick) and 1 <= tick <= count + 6 for tick in ticks)


def test_metrics_headline_is_the_last_epoch_not_the_best():
    figure = plots.plot_metrics(make_history(10, best=4), "cifar10", "S9 network")
    (annotation,) = figure.axes[1].texts
    assert annotation.xy == (10, 70.0)
    assert annotation.get_text() == "70.00%\nlast epoch"
    assert figure.get_suptitle() == "CIFAR-10: S9 network, 70.00% test accuracy after epoch 10"
    assert not any("99" in text.get_text() for text in figure.findobj(plt.Text) if "." in text.get_text())


def test_metrics_draw_a_diverged_run():
    history = make_history(3)
    history[1].train_loss, history[2].test_loss = float("nan"), float("inf")
    assert plots.plot_metrics(history, "cifar10", "S9").png


@pytest.mark.parametrize("history", [[], make_history(3)[::-1], make_history(2) + make_history(2)])
def test_metrics_refuse_an_empty_or_disordered_history(history):
    with pytest.raises(UserError, match="history: "):
        plots.plot_metrics(history, "cifar10", "S9")


# Misclassified


def test_misclassified_draws_even_steps_from_the_most_to_the_least_confident():
    confidences = [0, 0.6, 0.9, 0, 0.7, 0.8, 0.999, 0.55]
    figure = plots.plot_misclassified(*make_predictions(confidences), CLASSES, "cifar10", count=3)
    cells, values = drawn(figure)
    assert values == [6, 5, 7]  # ranks 0, 2 (2.5 rounded to even) and 5 of 6, 2, 5, 4, 1, 7
    assert [cell.get_title() for cell in cells] == ["true: airplane"] * 3
    assert [cell.get_xlabel() for cell in cells] == ["model: bird >99%", "model: bird 80%", "model: bird 55%"]
    assert figure.get_suptitle() == (
        "CIFAR-10: 6 of 8 test images are misclassified\n"
        "Shown: 3 at even steps, from the most to the least confident mistake"
    )
    assert visible(figure) == cells


def test_misclassified_breaks_ties_by_index():
    _, values = drawn(
        plots.plot_misclassified(*make_predictions([0.8, 0.7] * 50), CLASSES, "cifar10", count=100)
    )
    assert values == [*range(0, 100, 2), *range(1, 100, 2)]


def test_misclassified_draws_only_mistakes_with_their_own_texts():
    generator = np.random.default_rng(0)
    images, labels = make_images(200), generator.integers(0, 3, 200)
    probabilities = generator.dirichlet([1, 1, 1], 200)
    figure = plots.plot_misclassified(images, labels, probabilities, CLASSES, "cifar10")
    cells, values = drawn(figure)
    assert len(set(values)) == 20
    for cell, index in zip(cells, values, strict=True):
        predicted = probabilities[index].argmax()
        assert predicted != labels[index]
        assert cell.get_title() == f"true: {CLASSES[labels[index]]}"
        assert cell.get_xlabel().startswith(f"model: {CLASSES[predicted]} ")
    shown = probabilities[values].max(axis=1)
    assert list(shown) == sorted(shown, reverse=True)
    mistakes = probabilities.max(axis=1)[probabilities.argmax(axis=1) != labels]
    assert (shown[0], shown[-1]) == (mistakes.max(), mistakes.min())
    assert fits(figure)


def test_misclassified_longest_texts_stay_apart():
    images, labels, probabilities = make_predictions([0.999] * 5)
    classes = ["airplane", "ship", "automobile"]
    figure = plots.plot_misclassified(images, labels, probabilities, classes, "cifar10")
    figure.draw_without_rendering()
    boxes = [axes.xaxis.label.get_window_extent() for axes in figure.axes]
    assert all(right.x0 - left.x1 > 10 for left, right in pairwise(boxes))
    assert fits(figure)


@pytest.mark.parametrize("mistakes", [1, 4, 7])
def test_misclassified_draws_all_when_there_are_fewer(mistakes):
    figure = plots.plot_misclassified(*make_predictions([0.9] * mistakes + [0] * 3), CLASSES, "cifar10")
    cells, values = drawn(figure)
    assert values == list(range(mistakes))
    assert "Shown: all of them" in figure.get_suptitle()
    assert visible(figure) == cells


def test_misclassified_without_a_mistake_says_so():
    figure = plots.plot_misclassified(*make_predictions([0] * 5), CLASSES, "cifar10")
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
        plots.plot_misclassified(**given | change, classes=CLASSES)
    assert "\n" not in str(caught.value)


# All of them


def make_all(dataset):
    return [
        plots.plot_augmentations(make_images(8), {"Original": lambda image: image}, dataset),
        plots.plot_metrics(make_history(5), dataset, "S9"),
        plots.plot_misclassified(*make_predictions([0.9] * 5), CLASSES, dataset),
        plots.plot_misclassified(*make_predictions([0] * 5), CLASSES, dataset),
    ]


def test_every_figure_names_its_data_set_and_digits_loudly():
    for figure in make_all("cifar10"):
        assert figure.get_suptitle().startswith("CIFAR-10: ")
        assert "DIGITS" not in figure.get_suptitle()
    for figure in make_all("digits"):
        assert figure.get_suptitle().startswith("DIGITS, not CIFAR-10\n")
        board = figure._suptitle.get_bbox_patch()
        assert matplotlib.colors.to_hex(board.get_facecolor()).upper() == plots.VERMILLION
        assert fits(figure)


def test_a_long_model_name_wraps_inside_the_figure():
    figure = plots.plot_metrics(make_history(2), "cifar10", "a network with a very long name " * 5)
    assert fits(figure)


def test_the_session_style_does_not_leak_in_and_no_pyplot_figure_stays_open(tmp_path):
    wanted = plots.plot_metrics(make_history(5), "cifar10", "S9").png
    with plt.style.context("dark_background"):
        before = dict(plt.rcParams)
        assert plots.plot_metrics(make_history(5), "cifar10", "S9").png == wanted
        assert dict(plt.rcParams) == before
    assert plt.get_fignums() == []


def test_a_notebook_gets_one_png():
    formatter = pytest.importorskip("IPython.core.formatters").DisplayFormatter()
    data, _ = formatter.format(plots.plot_metrics(make_history(2), "cifar10", "S9"))
    assert set(data) == {"text/plain", "image/png"}
    assert data["image/png"].startswith(b"\x89PNG")


# Saving


def test_save_writes_a_readable_opaque_png_of_the_documented_width(tmp_path):
    figure = plots.plot_metrics(make_history(30), "cifar10", "S9")
    path = plots.save(figure, str(tmp_path / "new" / "folder" / "metrics.png"))
    assert path == tmp_path / "new" / "folder" / "metrics.png"
    picture = matplotlib.image.imread(path)
    assert picture.shape[1] == 1100
    assert tuple(picture[-1, -1]) == (1, 1, 1, 1)
    assert path.stat().st_size < 300_000
    assert list(path.parent.iterdir()) == [path]


def test_the_same_data_gives_the_same_file(tmp_path):
    for name in ("a.png", "b.png"):
        plots.save(plots.plot_metrics(make_history(3), "cifar10", "S9"), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("name", ["file.txt/metrics.png", "folder.png", "metrics.jpg", "metrics"])
def test_save_to_where_it_cannot_is_a_user_error(tmp_path, name):
    (tmp_path / "file.txt").write_text("a file where a folder is needed")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=name) as caught:
        plots.save(plots.plot_metrics(make_history(1), "cifar10", "S9"), tmp_path / name)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.txt", "folder.png"]


# Scaling


def test_scaling_draws_a_panel_for_each_thing_that_varies():
    scaling = {"batch size": {"32": 900.0, "64": 1100.0}, "threads": {"1": 600.0, "2": 1100.0, "3": 1200.4}}
    figure = plots.plot_scaling(scaling, "a CPU, 3 cores")
    first, second = figure.axes
    assert [bar.get_height() for bar in second.patches] == [600.0, 1100.0, 1200.4]
    assert [label.get_text() for label in first.get_xticklabels()] == ["32", "64"]
    assert "1,200" in [text.get_text() for text in second.texts]
    assert "a CPU, 3 cores" in figure.get_suptitle()
    assert first.get_ylim() == second.get_ylim()
    assert fits(figure)


@pytest.mark.parametrize("scaling", [{}, {"threads": {}}])
def test_scaling_needs_something_to_draw(scaling):
    with pytest.raises(UserError, match="nothing to draw"):
        plots.plot_scaling(scaling, "a CPU")


# Accuracy


OURS = [plots.Mark("reference", 174_352, 89.28), plots.Mark("best", 197_808, 93.1, 0.12)]
PUBLIC = [
    plots.Mark("one", 176_122, 93.57),
    plots.Mark("a name that is long", 163_744, 87.04),
    plots.Mark("three", 126_000, 87.02),
]


def test_accuracy_draws_every_mark_at_its_place_and_a_spread_where_there_is_one():
    figure = plots.plot_accuracy(OURS, PUBLIC, 200_000, 85.0)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    points = {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axes.lines}
    assert points["here"] == [(174_352, 89.28), (197_808, 93.1)]
    assert points["public"] == [(176_122, 93.57), (163_744, 87.04), (126_000, 87.02)]
    (bar,) = axes.containers
    low, high = bar[2][0].get_segments()[0][:, 1]
    assert (low, high) == (pytest.approx(92.98), pytest.approx(93.22))
    assert fits(figure)


def test_accuracy_names_every_mark_and_no_name_covers_another():
    figure = plots.plot_accuracy(OURS, PUBLIC, 200_000, 85.0)
    figure.draw_without_rendering()
    names = figure.axes[0].texts[:5]
    assert {text.get_text() for text in names} == {
        "reference 89.28%", "best 93.10 ± 0.12%", "one 93.57%", "a name that is long 87.04%", "three 87.02%",
    }  # fmt: skip
    boxes = [text.get_window_extent() for text in names]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_accuracy_draws_the_limits():
    (axes,) = plots.plot_accuracy(OURS, [], 200_000, 85.0).axes
    limits = [line for line in axes.lines if line.get_color() == plots.GREEN]
    assert [list(line.get_xdata()) for line in limits] == [[200_000, 200_000], [0, 1]]
    assert [list(line.get_ydata()) for line in limits] == [[0, 1], [85.0, 85.0]]
    texts = [text.get_text().strip() for text in axes.texts[-2:]]
    assert texts == ["limit: fewer than 200,000", "target: 85%"]


def test_accuracy_needs_a_network_of_ours():
    with pytest.raises(UserError, match="there is no network to draw"):
        plots.plot_accuracy([], PUBLIC, 200_000, 85.0)
