"""Measures of a network and its predictions, as arrays: calibration, first kernels, Grad-CAM.

Images are uint8 (n, height, width, 3), labels integers (n,), probabilities floats (n, classes) in 0..1; mean
and std are those of the training set, per channel, in 0..1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from s9.data.device_loader import normalise
from s9.data.sources import Data
from s9.errors import UserError

BINS = 15  # of the confidence, as in Guo et al.
EXAMPLES = 6  # correct predictions, and wrong ones, that Grad-CAM is computed for


class Calibration(NamedTuple):
    """Confidence against accuracy, in BINS equal parts of 0..1, each without its lower end but the first.

    The means are those of a bin's predictions, from 0 to 1, and NaN where there are none.
    """

    counts: np.ndarray  # int64 (BINS,), of predictions
    confidence: np.ndarray  # float64 (BINS,), mean
    accuracy: np.ndarray  # float64 (BINS,), mean

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
    probability: float  # of the predicted class
    predicted_map: np.ndarray  # from grad_cam(), of the predicted class
    true_map: np.ndarray  # the same of the true class


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
    convolution = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        (answers,) = convolution(_inputs(network, image[None], mean, std))
    return convolution.weight.detach().cpu().numpy(), answers.cpu().numpy()


def _inputs(network: nn.Module, images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The images as the network takes them, on its device. Raises UserError if they are not uint8."""
    if images.dtype != np.uint8:
        raise UserError(f"images must be uint8 (n, height, width, 3), got {images.dtype} {images.shape}")
    device = next(network.parameters()).device
    mean, std = torch.tensor(mean, device=device), torch.tensor(std, device=device)
    return normalise(torch.from_numpy(np.ascontiguousarray(images)).to(device), mean, std)


@torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
@torch.no_grad()
def class_probabilities(
    network: nn.Module, images: np.ndarray, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
    """Float32 (n, classes). The network is left in evaluation mode."""
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

    if not isinstance(getattr(network, "C4", None), nn.Module):
        raise UserError(f"{type(network).__name__} has no block C4 to explain: give a network of model.py")
    inputs = _inputs(network.eval(), images, mean, std)
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
        images, true, likeliest = data.test_images[chosen], data.test_labels[chosen], predicted[chosen]
        maps = [grad_cam(network, images, labels, data.mean, data.std) for labels in (likeliest, true)]
        return list(map(Example, images, true, likeliest, confidence[chosen], *maps))

    correct = predicted == data.test_labels
    return examples(correct), examples(~correct)


def even_steps(confidence: np.ndarray, group: np.ndarray, count: int) -> np.ndarray:
    """Indices of at most `count` members of a group: evenly spaced ranks, by falling confidence.

    confidence: floats (n,), equal ones are ranked by index. group: bool (n,).
    """
    members = np.flatnonzero(group)
    ranked = members[np.argsort(-confidence[members], kind="stable")]
    return ranked[np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)]


def check_predictions(labels: np.ndarray, probabilities: np.ndarray, classes: int | None = None) -> None:
    """Raises UserError unless there is a row of probabilities for each label, and a column for each class."""
    columns = probabilities.shape[1] if classes is None else classes
    if probabilities.shape != (len(labels), columns) or probabilities.size == 0:
        expected = f"({len(labels)}, {columns}), a row for each label and at least one"
        raise UserError(f"probabilities must be {expected}, got {probabilities.shape}")
    if labels.min() < 0 or labels.max() >= columns:
        raise UserError(f"labels must be 0 to {columns - 1}, got {labels.min()} to {labels.max()}")
    if not (probabilities.min() >= 0 and probabilities.max() <= 1.001):  # NaN fails as well.
        raise UserError("probabilities must be 0 to 1: are these logits?")
