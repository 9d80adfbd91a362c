"""Measures a network and its predictions: calibration, first kernels, Grad-CAM. Arrays come out."""

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
"""Right and wrong predictions, each, that Grad-CAM explains."""


class Calibration(NamedTuple):
    """Confidence against accuracy, in BINS equal parts of 0..1, each without its lower end but the first."""

    counts: np.ndarray
    """int64 (BINS,): predictions whose confidence is in the bin."""
    confidence: np.ndarray
    """float64 (BINS,), 0 to 1: their mean confidence, NaN where there are none."""
    accuracy: np.ndarray
    """float64 (BINS,), 0 to 1: the share of them that is right, NaN where there are none."""

    @property
    def error(self) -> float:
        """The expected calibration error, 0 to 1: the mean over all predictions of their bin's gap."""
        filled = self.counts > 0
        gaps = np.abs(self.accuracy - self.confidence)[filled]
        return float(np.average(gaps, weights=self.counts[filled]))


class Example(NamedTuple):
    """A prediction and what speaks for it."""

    image: np.ndarray
    """uint8 (height, width, 3)."""
    true: int
    predicted: int
    probability: float
    """Of the predicted class, 0 to 1."""
    predicted_map: np.ndarray
    """float32 (height, width), 0 to 1: what speaks for the predicted class, as grad_cam() gives it."""
    true_map: np.ndarray
    """The same for the true class."""


def calibration(labels: np.ndarray, probabilities: np.ndarray) -> Calibration:
    """How often predictions are right, by their confidence: the probability of the class predicted.

    After Guo et al., 2017, https://arxiv.org/abs/1706.04599. labels: integers (n,); probabilities: floats
    (n, classes), 0 to 1. Raises UserError if they are not.
    """
    check_predictions(labels, probabilities)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    inner_edges = np.linspace(0, 1, BINS + 1)[1:-1]
    bins = np.digitize(confidence, inner_edges, right=True)
    counts = np.bincount(bins, minlength=BINS)
    # 0 / 0 is NaN, as documented.
    with np.errstate(invalid="ignore"):
        means = [np.bincount(bins, weights=values, minlength=BINS) / counts for values in (confidence, right)]
    return Calibration(counts, *means)


def first_layer(
    network: nn.Module, image: np.ndarray, mean: Sequence[float], std: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """The kernels of the first convolution and what each answers to an image.

    Float32 (kernels, 3, height, width) and float32 (kernels, height, width) of the map.

    image: uint8 (height, width, 3). mean, std: of the training set, per channel, in 0..1.

    Raises UserError if the image is not as described, or the network's first layer is no convolution of RGB.
    """
    check_array("image", image, ("height", "width", 3), np.uint8)
    convolution = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    if convolution is None or convolution.weight.shape[1] != 3:
        raise UserError(
            f"{type(network).__name__} does not begin with a convolution of RGB: give another network"
        )
    with torch.no_grad():
        (answers,) = convolution(_inputs(network, image[None], mean, std))
    return convolution.weight.detach().float().cpu().numpy(), answers.float().cpu().numpy()


def _inputs(
    network: nn.Module, images: np.ndarray, mean: Sequence[float], std: Sequence[float]
) -> torch.Tensor:
    """The images as the network takes them, where the network is."""
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    mean, std = torch.tensor(mean, device=device), torch.tensor(std, device=device)
    return normalise(torch.from_numpy(np.ascontiguousarray(images)).to(device), mean, std)


@torch.no_grad()
def class_probabilities(
    network: nn.Module, images: np.ndarray, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
    """Of each class for each image: float32 (n, classes). Arguments as for grad_cam()."""
    check_array("images", images, ("n", "height", "width", 3), np.uint8)
    return network.eval()(_inputs(network, images, mean, std)).softmax(1).cpu().numpy()


def grad_cam(
    network: nn.Module, images: np.ndarray, labels: np.ndarray, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
    """What in each image speaks for a class: float32 (n, height, width), each from 0 to its maximum, 1.

    Grad-CAM (Selvaraju et al., 2017, https://arxiv.org/abs/1610.02391) at the output of the last block, C4:
    its channels, weighted by their mean gradient, summed; what is below 0, and speaks against the class, cut
    off; enlarged to the image. A map in which nothing speaks for the class is 0 everywhere. As all behind C4
    is an average and a linear layer, the maps are those of CAM (Zhou et al., 2015,
    https://arxiv.org/abs/1512.04150), not only its approximation.

    network: with a block C4; it is left in evaluation mode. images: uint8 (n, height, width, 3). labels:
    integers (n,), the classes to explain. mean, std: of the training set, per channel, in 0..1.

    Raises UserError if the network, the images or the labels are not as described.
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
    explainer = LayerGradCam(network, network.C4)
    with torch.enable_grad():
        maps = explainer.attribute(
            inputs.requires_grad_(), torch.from_numpy(labels).long().to(inputs.device), relu_attributions=True
        )
    maps = LayerAttribution.interpolate(maps.detach(), images.shape[1:3], "bilinear")[:, 0]
    return (maps / maps.amax((1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)).cpu().numpy()


def explained(
    network: nn.Module, data: Data, probabilities: np.ndarray
) -> tuple[list[Example], list[Example]]:
    """Right and wrong predictions on the test set with their Grad-CAM maps, EXAMPLES of each, or all.

    They are a fair sample, not picked, as even_steps() draws it. probabilities: floats (n, classes), as
    utils.probabilities gives them. Raises UserError if they are not of this test set.
    """
    check_predictions(data.test_labels, probabilities)
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    groups = []
    for group in (predicted == data.test_labels, predicted != data.test_labels):
        chosen = even_steps(confidence, group, EXAMPLES)
        if len(chosen) == 0:
            groups.append([])
            continue
        images, true = data.test_images[chosen], data.test_labels[chosen]
        maps = [
            grad_cam(network, images, labels, data.mean, data.std) for labels in (predicted[chosen], true)
        ]
        facts = true.tolist(), predicted[chosen].tolist(), confidence[chosen].tolist()
        groups.append([Example(*row) for row in zip(images, *facts, *maps, strict=True)])
    return groups[0], groups[1]


def even_steps(confidence: np.ndarray, group: np.ndarray, count: int) -> np.ndarray:
    """Indices of at most `count` of a group: evenly spaced ranks, with both ends, by falling confidence.

    confidence: floats (n,), equal ones are ranked by index. group: bool (n,), who belongs to it.
    """
    members = np.flatnonzero(group)
    ranked = members[np.argsort(-confidence[members], kind="stable")]
    return ranked[np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)]


def check_predictions(labels: Any, probabilities: Any, classes: int | str = "classes") -> None:
    """Check for integers (n,) and floats (n, classes) that fit each other.

    Raises UserError if they are not, or if the latter are no probabilities.
    """
    check_array("labels", labels, ("n",), np.integer)
    check_array("probabilities", probabilities, (len(labels), classes), np.floating)
    _check_range(labels, probabilities.shape[1])
    # Written so that NaN fails as well; the slack is for rounding.
    if not (probabilities.min() >= 0 and probabilities.max() <= 1.001):
        raise UserError("probabilities: must be 0 to 1, are these logits?")


def _check_range(labels: np.ndarray, classes: int) -> None:
    if labels.min() < 0 or labels.max() >= classes:
        raise UserError(f"labels: must be 0 to {classes - 1}, got {labels.min()} to {labels.max()}")


def check_array(name: str, array: Any, shape: tuple[int | str, ...], kind: type) -> None:
    """Check for a NumPy array of that kind and shape, where a word stands for any size but 0.

    Raises UserError if it is not.
    """
    found, fits = type(array).__name__, False
    if isinstance(array, np.ndarray):
        found = f"{array.dtype} {array.shape}"
        pairs = zip(array.shape, shape, strict=False)
        fits = len(array.shape) == len(shape) and np.issubdtype(array.dtype, kind)
        fits = fits and all(size == wanted or (isinstance(wanted, str) and size) for size, wanted in pairs)
    if not fits:
        sizes = ", ".join(map(str, shape))
        raise UserError(f"{name}: must be an array of {kind.__name__} ({sizes}), got {found}")
