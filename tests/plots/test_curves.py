from itertools import combinations

import matplotlib.pyplot as plt
import pytest
from figures import fits, make_history

from s9.plots import curves, style

# Metrics


@pytest.mark.parametrize("count", [1, 2, 30, 300])
def test_metrics_draw_exactly_the_history(count):
    history = make_history(count)
    figure = curves.plot_metrics(history, "cifar10", "S9")
    lines = [line for axes in figure.axes for line in axes.lines]
    columns = ["train_loss", "test_loss", "train_accuracy", "test_accuracy", "learning_rate"]
    for line, column in zip(lines, columns, strict=True):
        assert list(line.get_xdata()) == list(range(1, count + 1))
        assert list(line.get_ydata()) == [getattr(row, column) for row in history]
    assert [line.get_label() for line in lines[:4]] == ["train", "test", "train", "test"]
    assert fits(figure)
    for axes in figure.axes:
        left, right = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if left <= tick <= right]
        assert ticks and all(tick == round(tick) and 1 <= tick <= count + 6 for tick in ticks)


def test_metrics_headline_is_the_last_epoch_not_the_best():
    figure = curves.plot_metrics(make_history(10, best=4), "cifar10", "S9 network")
    (annotation,) = figure.axes[1].texts
    assert annotation.xy == (10, 70.0)
    assert annotation.get_text() == "70.00%\nlast epoch"
    assert figure.get_suptitle() == "CIFAR-10: S9 network, 70.00% test accuracy after epoch 10"
    assert not any("99" in text.get_text() for text in figure.findobj(plt.Text) if "." in text.get_text())


def test_metrics_draw_a_diverged_run():
    history = make_history(3)
    history[1].train_loss, history[2].test_loss = float("nan"), float("inf")
    assert curves.plot_metrics(history, "cifar10", "S9").png


# Accuracy


OURS = [
    curves.Point("reference", 174_352, 89.28, None, 30),
    curves.Point("best", 197_808, 93.1, 0.12, 72),
    curves.Point("fast", 494_368, 85.96, rules=False),
]
PUBLIC = [
    curves.Point("one", 176_122, 93.57, rules=False),
    curves.Point("a name that is long", 163_744, 87.04, None, 100),
    curves.Point("three", 126_000, 87.02),
]


def test_accuracy_draws_every_mark_hollow_outside_the_rules_and_the_spread():
    figure = curves.plot_accuracy(OURS, PUBLIC, 200_000, 85.0)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    points = {name: list(zip(*line.get_data(), strict=True)) for name, line in lines.items()}
    assert points == {
        "this repository": [(174_352, 89.28), (197_808, 93.1)],
        "this repository, outside the assignment's rules": [(494_368, 85.96)],
        "public": [(163_744, 87.04), (126_000, 87.02)],
        "public, outside the assignment's rules": [(176_122, 93.57)],
    }
    assert all((line.get_markerfacecolor() == "white") == ("outside" in name) for name, line in lines.items())
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == set(points)
    (bar,) = axes.containers
    low, high = bar[2][0].get_segments()[0][:, 1]
    assert (low, high) == (pytest.approx(92.98), pytest.approx(93.22))


def test_accuracy_labels_do_not_overlap_and_limits_are_drawn():
    figure = curves.plot_accuracy(OURS, PUBLIC, 200_000, 85.0)
    assert fits(figure)
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    assert {text.get_text().strip() for text in texts} == {
        "reference 89.28%, 30 epochs", "best 93.10 ± 0.12%, 72 epochs", "fast 85.96%", "one 93.57%",
        "a name that is long 87.04%, 100 epochs", "three 87.02%", "limit: fewer than 200,000", "target: 85%",
    }  # fmt: skip
    (legend,) = figure.legends
    boxes = [artist.get_window_extent() for artist in (*texts, legend)]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    limits = [line.get_data() for line in figure.axes[0].lines if line.get_color() == style.GREEN]
    assert [[list(values) for values in line] for line in limits] == [
        [[200_000, 200_000], [0, 1]],
        [[0, 1], [85.0, 85.0]],
    ]
