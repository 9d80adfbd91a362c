"""Measures of a network and its predictions, as arrays: calibration, first kernels, Grad-CAM.

Images are uint8 (n, height, width, 3), labels integers (n,), probabilities floats (n, classes) in 0..1; mean
and std are those of the training set, per channel, in 0..1. Functions raise UserError for anything else.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from s9.data.device_loader import normalise
from s9.data.sources import Data
from s9.errors import UserError

BINS = 15
"""Of the confidence, as in Guo et al."""
EXAMPLES = 6
"""Correct predictions, and wrong ones, that Grad-CAM is computed for."""


class Calibration(NamedTuple):
    """Confidence against accuracy, in BINS equal parts of 0..1, each without its lower end but the first."""

    counts: np.ndarray
    """int64 (BINS,): predictions whose confidence is in the bin."""
    confidence: np.ndarray
    """float64 (BINS,), 0 to 1: their mean confidence, NaN where there are none."""
    accuracy: np.ndarray
    """float64 (BINS,), 0 to 1: the share of them that is correct, NaN where there are none."""

    @property
    def error(self) -> float:
        """The expected calibration error, 0 to 1: the mean over all predictions of their bin's gap."""
        filled = self.counts > 0
        gaps = np.abs(self.accuracy - self.confidence)[filled]
        return float(np.average(gaps, weights=self.counts[filled]))


class Example(NamedTuple):
    """A prediction and its Grad-CAM maps."""

    image: np.ndarray
    true: int
    predicted: int
    probability: float
    """Of the predicted class."""
    predicted_map: np.ndarray
    """From grad_cam(), of the predicted class."""
    true_map: np.ndarray
    """The same of the true class."""


def calibration(labels: np.ndarray, probabilities: np.ndarray) -> Calibration:
    """Accuracy by confidence, the probability of the predicted class.

    Guo et al., 2017, https://arxiv.org/abs/1706.04599.
    """
    check_predictions(labels, probabilities)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.digitize(confidence, np.linspace(0, 1, BINS + 1)[1:-1], right=True)
    counts = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, as documented.
        means = [np.bincount(bins, weights=values, minlength=BINS) / counts for values in (confidence, right)]
    return Calibration(counts, *means)


def first_layer(
    network: nn.Module, image: np.ndarray, mean: Sequence[float], std: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """The kernels of the first convolution and its output for an image.

    Float32 (kernels, 3, height, width) and float32 (kernels, height, width).
    """
    check_array("image", image, ("height", "width", 3), np.uint8)
    convolution = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        (answers,) = convolution(_inputs(network, image[None], mean, std))
    return convolution.weight.detach().cpu().numpy(), answers.cpu().numpy()


def _inputs(
    network: nn.Module, images: np.ndarray, mean: Sequence[float], std: Sequence[float]
) -> torch.Tensor:
    """The images as the network takes them, on its device."""
    device = next(network.parameters()).device
    mean, std = torch.tensor(mean, device=device), torch.tensor(std, device=device)
    return normalise(torch.from_numpy(np.ascontiguousarray(images)).to(device), mean, std)


@torch.no_grad()
def class_probabilities(
    network: nn.Module, images: np.ndarray, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
    """Float32 (n, classes). The network is left in evaluation mode."""
    check_array("images", images, ("n", "height", "width", 3), np.uint8)
    return network.eval()(_inputs(network, images, mean, std)).softmax(1).cpu().numpy()


def grad_cam(
    network: nn.Module, images: np.ndarray, labels: np.ndarray, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
    """Grad-CAM of the classes `labels`: float32 (n, height, width), each map from 0 to 1, or all 0.

    The channels of the output of block C4, weighted by their mean gradient, are summed, cut off below 0, and
    enlarged to the image (Selvaraju et al., 2017, https://arxiv.org/abs/1610.02391). As only an average and a
    linear layer follow C4, the maps are those of CAM (Zhou et al., 2015, https://arxiv.org/abs/1512.04150).

    The network is left in evaluation mode. Raises UserError if it has no block C4.
    """
    from captum.attr import LayerAttribution, LayerGradCam  # Here: slow, and predict.py does without.

    check_array("images", images, ("n", "height", "width", 3), np.uint8)
    check_array("labels", labels, (len(images),), np.integer)
    if not isinstance(getattr(network, "C4", None), nn.Module):
        raise UserError(f"{type(network).__name__} has no block C4 to explain: give a network of model.py")
    network.eval()
    inputs = _inputs(network, images, mean, std)
    with torch.no_grad():
        _check_range(labels, network(inputs[:1]).shape[1])
    targets = torch.from_numpy(labels).long().to(inputs.device)
    with torch.enable_grad():
        explainer = LayerGradCam(network, network.C4)
        maps = explainer.attribute(inputs.requires_grad_(), targets, relu_attributions=True)
    maps = LayerAttribution.interpolate(maps.detach(), images.shape[1:3], "bilinear")[:, 0]
    return (maps / maps.amax((1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)).cpu().numpy()


def explained(
    network: nn.Module, data: Data, probabilities: np.ndarray
) -> tuple[list[Example], list[Example]]:
    """At most EXAMPLES correct and wrong predictions on the test set, drawn by even_steps(), with Grad-CAM.

    probabilities: of the test set.
    """
    check_predictions(data.test_labels, probabilities)
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)

    def examples(group: np.ndarray) -> list[Example]:
        chosen = even_steps(confidence, group, EXAMPLES)
        if len(chosen) == 0:
            return []
        images, classes = data.test_images[chosen], (data.test_labels[chosen], predicted[chosen])
        true_map, predicted_map = (
            grad_cam(network, images, labels, data.mean, data.std) for labels in classes
        )
        columns = images, *classes, confidence[chosen], predicted_map, true_map
        return [Example(*row) for row in zip(*columns, strict=True)]

    correct = predicted == data.test_labels
    return examples(correct), examples(~correct)


def even_steps(confidence: np.ndarray, group: np.ndarray, count: int) -> np.ndarray:
    """Indices of at most `count` members of a group: evenly spaced ranks, by falling confidence.

    confidence: floats (n,), equal ones are ranked by index. group: bool (n,).
    """
    members = np.flatnonzero(group)
    ranked = members[np.argsort(-confidence[members], kind="stable")]
    return ranked[np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)]


def check_predictions(labels: Any, probabilities: Any, classes: int | str = "classes") -> None:
    """Raises UserError unless labels and probabilities fit each other and are as this module needs them."""
    check_array("labels", labels, ("n",), np.integer)
    check_array("probabilities", probabilities, (len(labels), classes), np.floating)
    _check_range(labels, probabilities.shape[1])
    if not (probabilities.min() >= 0 and probabilities.max() <= 1.001):  # NaN fails as well.
        raise UserError("probabilities: must be 0 to 1, are these logits?")


def _check_range(labels: np.ndarray, classes: int) -> None:
    if labels.min() < 0 or labels.max() >= classes:
        raise UserError(f"labels: must be 0 to {classes - 1}, got {labels.min()} to {labels.max()}")


def check_array(name: str, array: Any, shape: tuple[int | str, ...], kind: type) -> None:
    """Raises UserError unless `array` is of that kind and shape, where a word stands for any size but 0."""
    is_array = isinstance(array, np.ndarray)
    if not (
        is_array
        and np.issubdtype(array.dtype, kind)
        and array.ndim == len(shape)
        and all(
            n == size or (isinstance(n, str) and size) for size, n in zip(array.shape, shape, strict=True)
        )
    ):
        found = f"{array.dtype} {array.shape}" if is_array else type(array).__name__
        sizes = ", ".join(map(str, shape))
        raise UserError(f"{name}: must be an array of {kind.__name__} ({sizes}), got {found}")
