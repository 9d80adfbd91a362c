"""The widget of the notebook that classifies an uploaded photo, driven as a browser drives it."""

import io
from datetime import datetime
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from model import build
from s9.data import photos
from s9.data.sources import load
from s9.plots import diagnostics, tryout


@pytest.fixture(scope="module")
def data():
    return load("digits")


def photo():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def upload(widget, version, name, content):
    """As a browser does with ipywidgets 8, or with 7, which Colab has."""
    if version == 7:
        widget._show({"new": {name: {"metadata": {"name": name}, "content": content}}})
    else:
        file = {"name": name, "type": "", "size": 1, "content": content, "last_modified": datetime.now()}
        widget.upload.value = [file]


@pytest.mark.parametrize("version", [7, 8])
def test_a_photo_is_shown_as_the_network_gets_it_with_three_classes_and_grad_cam(data, monkeypatch, version):
    drawn = []
    draw = diagnostics.plot_photo
    monkeypatch.setattr(tryout, "plot_photo", lambda *it: drawn.append(it) or draw(*it))
    torch.manual_seed(0)
    widget = tryout.TryOut(build("fast"), data)
    assert widget.children == (widget.upload,)
    upload(widget, version, "my photo.png", photo())
    ((image, maps, classes, probabilities, name),) = drawn
    np.testing.assert_array_equal(image, photos.fit(Image.open(io.BytesIO(photo()))))
    assert maps.shape == (3, 32, 32) and name == "digits"
    assert set(classes) < set(data.classes) and (np.diff(probabilities) <= 0).all()
    shown = Image.open(io.BytesIO(widget.picture.value))
    assert shown.width > 1_000 and widget.children == (widget.upload, widget.picture)

    upload(widget, version, "text.jpg", b"no picture")
    assert widget.problem.value == "text.jpg: cannot be read as a picture (unknown format: save it as JPEG)"
    assert widget.children == (widget.upload, widget.problem)


@pytest.mark.parametrize("somebody", [True, False])
def test_the_widget_is_shown_where_somebody_can_upload(data, monkeypatch, capsys, somebody):
    kernel = SimpleNamespace(kernel=SimpleNamespace(_allow_stdin=somebody))
    monkeypatch.setattr(tryout, "get_ipython", lambda: kernel)
    shown = tryout.try_out(build("fast"), data)
    assert isinstance(shown, tryout.TryOut) == somebody
    assert ("Run this cell" in capsys.readouterr().out) != somebody
