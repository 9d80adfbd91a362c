"""A widget that classifies a photo in a notebook, in JupyterLab or Colab."""

from pathlib import Path

import ipywidgets as widgets
import numpy as np
from IPython import get_ipython
from torch import nn

from s9.analysis import interpret
from s9.data import photos
from s9.data.sources import Data
from s9.errors import UserError
from s9.plots.diagnostics import plot_photo

WIDTH = "750px"


def try_out(network: nn.Module, data: Data) -> "TryOut | None":
    """The widget; where a program runs the notebook, None and a line of text. Arguments as for TryOut."""
    kernel = getattr(get_ipython(), "kernel", None)
    if getattr(kernel, "_allow_stdin", False):  # Set by a front end where somebody can answer.
        return TryOut(network, data)
    print("Run this cell in JupyterLab or Colab to upload a photo.")
    return None


class TryOut(widgets.VBox):
    """A button to upload a photo; then the network's input, the most probable classes, and Grad-CAM.

    network: of model.py, on any device. data: that it was trained on.
    """

    def __init__(self, network: nn.Module, data: Data) -> None:
        self.network, self.data = network, data
        self.upload = widgets.FileUpload(accept="image/*", multiple=False, description="Upload a photo")
        self.picture = widgets.Image(layout={"width": WIDTH})
        self.problem = widgets.Label()
        self.upload.observe(self._show, "value")
        super().__init__([self.upload])

    def _show(self, change: dict) -> None:
        files = change["new"]
        if not files:
            return
        if isinstance(files, dict):  # ipywidgets 7, in Colab: files by name.
            files = [file | {"name": name} for name, file in files.items()]
        try:
            self.picture.value = self._drawn(files[-1]["name"], bytes(files[-1]["content"]))
            self.children = [self.upload, self.picture]
        except UserError as error:
            self.problem.value = str(error)
            self.children = [self.upload, self.problem]

    def _drawn(self, name: str, content: bytes) -> bytes:
        image = photos.read(Path(name), content)
        mean, std = self.data.mean, self.data.std
        probabilities = interpret.class_probabilities(self.network, image[None], mean, std)[0]
        likeliest = np.argsort(-probabilities, kind="stable")[:3]
        maps = interpret.grad_cam(self.network, image[None].repeat(len(likeliest), 0), likeliest, mean, std)
        labels = [self.data.classes[label] for label in likeliest]
        return plot_photo(image, maps, labels, probabilities[likeliest], self.data.name).png
