"""What all figures have in common: title, style, size, and how they are shown and saved."""

import io

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from figures import CLASSES, fits, make_history, make_images, make_predictions

from model import S9Net
from s9.analysis import interpret
from s9.analysis.receptive_field import receptive_field
from s9.errors import UserError
from s9.plots import curves, diagnostics, style


@pytest.fixture(scope="module")
def rows():
    return receptive_field(S9Net())


def make_all(dataset, rows):
    images, labels, probabilities = make_predictions([0.9, 0.2, 0.6, 0.8, 0.7])
    example = interpret.Example(images[0], 0, 2, 0.9, np.eye(32), np.eye(32))
    return [
        curves.plot_metrics(make_history(5), dataset, "S9"),
        diagnostics.plot_augmentations(make_images(8), {"Original": lambda image: image}, dataset),
        diagnostics.plot_receptive_field(images[0], rows, dataset),
        diagnostics.plot_confusion(labels, probabilities, CLASSES, dataset),
        diagnostics.plot_misclassified(images, labels, probabilities, CLASSES, dataset),
        diagnostics.plot_misclassified(*make_predictions([0] * 5), CLASSES, dataset),
        diagnostics.plot_grad_cam([example] * 6, [example] * 6, CLASSES, dataset),
        diagnostics.plot_kernels(*interpret.first_layer(S9Net(), images[1], *[(0.5, 0.5, 0.5)] * 2), dataset),
        diagnostics.plot_calibration(interpret.calibration(labels, probabilities), dataset),
    ]


@pytest.mark.parametrize(
    ("dataset", "beginning"), [("cifar10", "CIFAR-10: "), ("pets $1 $2", "PETS $1 $2, not CIFAR-10\n")]
)
def test_every_figure_names_its_data_set_and_marks_all_but_cifar10(dataset, beginning, rows):
    for figure in make_all(dataset, rows):
        assert figure.get_suptitle().startswith(beginning)
        board = figure._suptitle.get_bbox_patch()
        color = board and matplotlib.colors.to_hex(board.get_facecolor()).upper()
        assert color == (None if dataset == "cifar10" else style.VERMILLION)
        assert fits(figure)


def test_long_names_wrap_inside_the_figure():
    name = "a network with a very long name " * 5
    assert fits(curves.plot_metrics(make_history(2), "cifar10", name))
    assert fits(curves.plot_metrics(make_history(2), name, "S9"))


def test_the_session_style_does_not_leak_in_and_no_pyplot_figure_stays_open(tmp_path):
    wanted = curves.plot_metrics(make_history(5), "cifar10", "S9").png
    with plt.style.context("dark_background"):
        before = dict(plt.rcParams)
        assert curves.plot_metrics(make_history(5), "cifar10", "S9").png == wanted
        assert dict(plt.rcParams) == before
    assert plt.get_fignums() == []


# Saving


def test_save_writes_a_readable_opaque_png_of_the_documented_width(tmp_path):
    figure = curves.plot_metrics(make_history(30), "cifar10", "S9")
    path = tmp_path / "new" / "folder" / "metrics.png"
    style.save(figure, path)
    picture = matplotlib.image.imread(path)
    assert picture.shape[1] == 1100
    assert tuple(picture[-1, -1]) == (1, 1, 1, 1)
    assert path.stat().st_size < 300_000
    assert list(path.parent.iterdir()) == [path]


def test_the_same_data_gives_the_same_bytes_on_white_with_a_margin(rows):
    torch.manual_seed(0)
    once = make_all("cifar10", rows)
    torch.manual_seed(0)
    for figure, again in zip(once, make_all("cifar10", rows), strict=True):
        assert figure.png == again.png
        picture = matplotlib.image.imread(io.BytesIO(figure.png))
        edges = [picture[:6], picture[-6:], picture[:, :6].swapaxes(0, 1), picture[:, -6:].swapaxes(0, 1)]
        assert all((edge == 1).all() for edge in edges), figure.get_suptitle()


@pytest.mark.parametrize("name", ["file.txt/metrics.png", "folder.png"])
def test_save_to_where_it_cannot_is_a_user_error(tmp_path, name):
    (tmp_path / "file.txt").write_text("a file where a folder is needed", encoding="utf-8")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=name.split("/")[0]) as caught:
        style.save(curves.plot_metrics(make_history(1), "cifar10", "S9"), tmp_path / name)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.txt", "folder.png"]
