"""Which optimizer trains which parameter, the schedule of learning rates, and the update of Muon."""

import copy
import warnings

import numpy as np
import pytest
import small
import torch
from small import new_network, state_of

from model import NETWORKS, build
from s9.engine import optimizer as optimizer_module
from s9.engine.hardware import make_accelerator
from s9.engine.optimizer import Muon, batches_by_shape, make_optimizer, newton_schulz, padded_batch
from s9.settings import PRESETS, Settings


def test_weight_decay_spares_norms_and_biases_and_rates_keep_their_ratios():
    network = build("best")
    settings = Settings(learning_rate=0.4, bias_rate=16, muon_rate=0.05, weight_decay=0.01)
    optimizer, scheduler = make_optimizer(network, settings, steps=100)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    for _ in range(100):
        *groups, muon = optimizer.param_groups
        for group in groups:
            for name in (names[id(parameter)] for parameter in group["params"]):
                scale = "norm" in name or name.endswith("bias")
                assert group["weight_decay"] == (0 if scale else 0.01), name
                factor = 16 if name.endswith("bias") else 1
                assert group["lr"] == pytest.approx(factor * groups[0]["lr"]), name
        assert muon["lr"] == pytest.approx(groups[0]["lr"] / 8)
        optimizer.step()
        scheduler.step()
    assert type(make_optimizer(network, Settings(), steps=100)[0]) is torch.optim.SGD


@pytest.mark.parametrize("steps", [1, 2, 5, 1000])
def test_the_schedule_peaks_at_a_fifth_and_ends_at_nothing(steps):
    optimizer, scheduler = make_optimizer(build("reference"), Settings(learning_rate=0.4), steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    if steps == 1000:
        assert max(rates) == pytest.approx(0.4, rel=1e-3)
        assert rates.index(max(rates)) == pytest.approx(200, abs=2)
        assert rates[-1] < 1e-3
        assert np.ptp(np.diff(rates[:200])) < 1e-9  # straight up
        assert np.ptp(np.diff(rates[201:])) < 1e-9  # straight down


@pytest.mark.parametrize("name", NETWORKS)
def test_muon_trains_the_kernels_whose_length_a_norm_undoes(name):
    """Doubling such a kernel leaves the logits as they are, and doubling any other does not."""
    torch.manual_seed(0)
    network = build(name)
    optimizer, _ = make_optimizer(network, Settings(muon_rate=0.05), steps=100)
    assert isinstance(optimizer, Muon)
    grouped = [set(map(id, group["params"])) for group in optimizer.param_groups]
    *_, by_muon = grouped
    assert sum(map(len, grouped)) == len(set().union(*grouped)) == len(list(network.parameters()))
    images = torch.randn(4, 3, 32, 32)
    logits = network.train()(images)
    for key, parameter in network.named_parameters():
        if parameter.ndim < 2:
            assert id(parameter) not in by_muon
            continue
        longer = copy.deepcopy(network)
        with torch.no_grad():
            longer.get_parameter(key).mul_(2)
        same = torch.allclose(longer(images), logits, atol=1e-3, rtol=1e-3)
        depthwise = parameter.shape[1] == 1
        assert (id(parameter) in by_muon) == (same and not depthwise), key


@pytest.mark.parametrize("shape", [(16, 27), (64, 576), (64, 64), (96, 40)])
def test_newton_schulz_brings_singular_values_to_1_and_keeps_the_vectors(shape):
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = left @ torch.diag(torch.logspace(-3, -1, min(shape))) @ right
    values = left.T @ newton_schulz(matrix[None])[0] @ right.T
    assert torch.diagonal(values).min() > 0.6
    assert torch.diagonal(values).max() < 1.25
    assert (values - torch.diag(torch.diagonal(values))).abs().max() < 0.01
    assert torch.equal(newton_schulz(torch.zeros(1, *shape)), torch.zeros(1, *shape))


def test_parameters_without_muon_are_trained_as_by_sgd():
    ways = []
    for kind in (torch.optim.SGD, Muon):
        network = new_network(dropout=0)
        optimizer = kind(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
        for seed in range(3):
            torch.manual_seed(seed)
            network(torch.randn(8, 3, 16, 16)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        ways.append([parameter.detach().clone() for parameter in network.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*ways, strict=True))


def kernel_by_kernel(kernel, average, rate, momentum):
    """Muon's update of one kernel alone, as the committed runs were trained with."""
    average.mul_(momentum).add_(kernel.grad)
    matrix = kernel.grad.add(average, alpha=momentum).flatten(1)
    wide = matrix.T if len(matrix) > matrix.shape[1] else matrix
    update = wide / wide.norm().clamp(min=1e-12)
    for _ in range(5):
        gram = update @ update.T
        update = 3.4445 * update + (-4.7750 * gram + 2.0315 * gram @ gram) @ update
    update = (update if wide is matrix else update.T).view(kernel.shape)
    length = len(kernel) ** 0.5
    kernel.mul_(length / kernel.norm())
    kernel.sub_(update * (rate * length / update.norm().clamp(min=1e-12)))


@pytest.mark.parametrize("name", ["best", "dilated"])
@pytest.mark.parametrize("make", [batches_by_shape, padded_batch])
def test_a_batch_of_kernels_is_updated_as_one_kernel_at_a_time(monkeypatch, name, make):
    """By shape to the bit, so that committed runs stay repeatable; padded to rounding."""
    monkeypatch.setattr(optimizer_module, "batches_by_shape", make)
    torch.manual_seed(0)
    network = build(name).to(memory_format=torch.channels_last)
    optimizer, _ = make_optimizer(network, Settings(muon_rate=0.02), steps=100)
    kernels = optimizer.param_groups[-1]["params"]
    others = [kernel.detach().clone() for kernel in kernels]
    averages = [torch.zeros_like(kernel) for kernel in kernels]
    for _ in range(3):
        for kernel, other in zip(kernels, others, strict=True):
            kernel.grad = torch.randn_like(kernel)
            other.grad = kernel.grad.clone()
        optimizer.step()
        for other, average in zip(others, averages, strict=True):
            kernel_by_kernel(other, average, optimizer.param_groups[-1]["lr"], 0.9)
    for kernel, other in zip(kernels, others, strict=True):
        assert kernel.grad is None
        if make is batches_by_shape:
            assert torch.equal(kernel.detach(), other)
        torch.testing.assert_close(kernel.detach(), other, atol=1e-6, rtol=1e-4)


def test_a_first_step_that_float16_skips_is_no_warning(monkeypatch):
    accelerator = make_accelerator("cpu", "float32")
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    monkeypatch.setattr(small, "make_accelerator", lambda *_: accelerator)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = state_of(PRESETS["best"], build("best"))
        accelerator.backward(state.prepared(torch.randn(4, 3, 16, 16)).sum() * 1e6)
        state.optimizer.step()
        assert state.optimizer.step_was_skipped
        state.scheduler.step()
