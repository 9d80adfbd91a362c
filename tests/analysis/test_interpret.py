import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small import small_data
from torch import nn

from model import NETWORKS, S9Net, build
from s9.analysis import interpret
from s9.data.device_loader import normalise
from s9.errors import UserError

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
IMAGES = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)

# Calibration


def test_calibration_is_what_the_definition_says_on_random_predictions():
    generator = np.random.default_rng(1)
    probabilities, labels = generator.dirichlet([0.5] * 10, 2000), generator.integers(0, 10, 2000)
    found = interpret.calibration(labels, probabilities)
    error = 0
    for number in range(15):
        members = [
            (row.max(), row.argmax() == label)
            for row, label in zip(probabilities, labels, strict=True)
            if number / 15 < row.max() <= (number + 1) / 15
        ]
        assert found.counts[number] == len(members)
        if members:
            confidence, accuracy = np.mean(members, axis=0)
            assert found.confidence[number] == pytest.approx(confidence)
            assert found.accuracy[number] == pytest.approx(accuracy)
            error += len(members) / 2000 * abs(accuracy - confidence)
        else:
            assert np.isnan(found.confidence[number]) and np.isnan(found.accuracy[number])
    assert found.error == pytest.approx(error)


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        (np.zeros(0, int), np.zeros((0, 2)), r"probabilities must be \(0, 2\), .*, got \(0, 2\)"),
        (np.zeros(2, int), np.zeros((3, 2)), r"probabilities must be \(2, 2\), .*, got \(3, 2\)"),
        (np.full(2, 2), np.zeros((2, 2)), "labels must be 0 to 1, got 2 to 2"),
        (np.zeros(2, int), np.full((2, 2), 3.0), "are these logits"),
        (np.zeros(2, int), np.full((2, 2), np.nan), "are these logits"),
    ],
)
def test_calibration_refuses_what_are_no_predictions(labels, probabilities, message):
    with pytest.raises(UserError, match=message) as caught:
        interpret.calibration(labels, probabilities)
    assert "\n" not in str(caught.value)


# Kernels


@pytest.mark.parametrize("name", NETWORKS)
def test_first_layer_is_the_kernels_that_see_the_image_and_what_they_answer(name):
    network, image = build(name), IMAGES[0]
    kernels, answers = interpret.first_layer(network, image, MEAN, STD)
    assert np.array_equal(kernels, network.C1[0].convolution.weight.detach().numpy())
    assert answers.shape == (len(kernels), 32, 32)
    patch = (image[4:7, 9:12] / 255 - MEAN) / STD
    expected = np.einsum("nchw,hwc->n", kernels, patch)  # at the patch's middle
    assert np.allclose(answers[:, 5, 10], expected, atol=1e-5)


# Grad-CAM


@pytest.mark.parametrize("name", NETWORKS)
def test_grad_cam_is_the_class_activation_map_of_our_networks(name):
    """Behind C4 there is only an average and a linear layer: its weights say what each channel is worth."""
    torch.manual_seed(3)
    network = build(name).eval()
    found = interpret.grad_cam(network, IMAGES.repeat(10, 0), np.arange(10), MEAN, STD)
    assert found.dtype == np.float32
    with torch.no_grad():
        inputs = normalise(torch.from_numpy(IMAGES), torch.tensor(MEAN), torch.tensor(STD))
        (features,) = network.C4(network.C3(network.C2(network.C1(inputs))))
        maps = torch.einsum("chw,nc->nhw", features, network.O.classifier.weight[:, :, 0, 0]).relu()
        maps = F.interpolate(maps[:, None], 32, mode="bilinear")[:, 0]
    largest = maps.amax((1, 2), keepdim=True)
    assert (largest > 0).sum() >= 3
    assert np.allclose(found, torch.where(largest > 0, maps / largest, 0), atol=1e-4)


def test_grad_cam_changes_nothing_in_the_network_and_needs_no_gradients_switched_on():
    network = S9Net().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        interpret.grad_cam(network, IMAGES, np.array([0]), MEAN, STD)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not network.C4._forward_hooks


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": nn.Linear(2, 2)}, "Linear has no block C4"),
        (
            {"images": IMAGES / 255},
            r"images must be uint8 \(n, height, width, 3\), got float64 \(1, 32, 32, 3\)",
        ),
    ],
)
def test_grad_cam_refuses_another_network_or_images_of_floats(change, message):
    given = {"network": S9Net(), "images": IMAGES, "labels": np.array([0]), "mean": MEAN, "std": STD}
    with pytest.raises(UserError, match=message):
        interpret.grad_cam(**given | change)


def test_explained_are_even_steps_of_right_and_of_wrong_predictions():
    data = small_data()
    predicted = np.where(np.arange(30) < 20, data.test_labels, (data.test_labels + 1) % 10)
    confidence = np.linspace(0.9, 0.4, 30)
    probabilities = np.full((30, 10), 0.01)
    probabilities[np.arange(30), predicted] = confidence
    right, wrong = interpret.explained(S9Net(), data, probabilities)
    for examples, first, last in ((right, 0, 19), (wrong, 20, 29)):
        assert len(examples) == interpret.EXAMPLES
        chosen = [int(np.abs(confidence - it.probability).argmin()) for it in examples]
        assert (chosen[0], chosen[-1]) == (first, last) and chosen == sorted(chosen)
        for it, index in zip(examples, chosen, strict=True):
            assert np.array_equal(it.image, data.test_images[index])
            assert (it.true, it.predicted) == (data.test_labels[index], predicted[index])
    assert all(np.array_equal(it.predicted_map, it.true_map) for it in right)
    assert not any(np.array_equal(it.predicted_map, it.true_map) for it in wrong)
