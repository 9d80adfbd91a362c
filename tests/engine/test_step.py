"""A training step: how many operations it launches, and when a captured step takes its place.

Without a GPU a stand-in takes the place of the CUDA graph. The graph itself: tests/gpu.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from small import SETTINGS, new_network, small_data, state_of
from torch.utils._python_dispatch import TorchDispatchMode

import utils
from dataset import loaders
from model import NETWORKS, build
from s9.engine import optimizer as optimizer_module
from s9.engine import step as step_module
from s9.engine.step import GraphedStep, largest_difference
from s9.settings import PRESETS


class Operations(TorchDispatchMode):
    """Counts the operations that PyTorch dispatches while entered."""

    def __enter__(self):
        self.count = 0
        return super().__enter__()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.count += 1
        return function(*arguments, **(options or {}))


def train(state, batches, step=None):
    return utils.train(
        state.prepared, batches, state.optimizer, state.scheduler, state.accelerator, 0.1, step=step
    )


def operations_of_a_step(name):
    """(network's forward and backward pass, everything else) of a step between two looks at the loss."""
    state = state_of(PRESETS[name], build(name))
    images, labels = torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last), torch.tensor([1, 2])

    def epoch(batches):
        with Operations() as operations:
            train(state, [(images, labels)] * batches)
        return operations.count

    epoch(1)
    step = (epoch(10) - epoch(4)) / 6  # Both look at the first and the last batch.
    with Operations() as operations:
        logits = state.prepared(images)
        logits.backward(torch.ones_like(logits))
    return operations.count, step - operations.count


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_launches_few_operations_beside_the_network(monkeypatch, name):
    """With all of Muon's kernels in one batch, as on every device but a CPU."""
    monkeypatch.setattr(optimizer_module, "batches_by_shape", optimizer_module.padded_batch)
    passes, others = operations_of_a_step(name)
    assert passes > others
    assert others <= (150 if PRESETS[name].muon_rate else 60)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("count", [1, 80, 256])
def test_both_losses_come_from_one_log_softmax_to_the_bit(count, smoothing):
    torch.manual_seed(count)
    logits = (5 * torch.randn(count, 10)).requires_grad_()
    labels = torch.randint(10, (count,))
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    (gradient,) = torch.autograd.grad(expected, logits)
    loss, plain = utils.cross_entropies(logits, labels, smoothing)
    assert torch.equal(loss, expected) and torch.equal(plain, F.cross_entropy(logits, labels))
    assert torch.equal(*torch.autograd.grad(loss, logits), gradient)


# The stand-in for a CUDA graph


class Recording:
    """Computes what a graph would replay, after warm-up steps that leave their traces; `fault` spoils it."""

    def __init__(self, fault=None):
        self.fault, self.shapes = fault, []

    def __call__(self, compute, images, labels, parameters):
        if self.fault == "cannot be captured":
            compute(images, labels)
            raise RuntimeError("operation not permitted\nwhen stream is capturing")
        for _ in range(2):
            compute(torch.zeros_like(images), labels)
            for parameter in parameters:
                parameter.grad = None
        self.shapes.append(tuple(images.shape))
        static = torch.zeros_like(images)

        def replay(images, labels):
            if self.fault != "stale inputs":
                static.copy_(images)
            outputs = compute(static, labels)
            if self.fault == "wrong gradient":
                parameters[0].grad.mul_(1.2)
            if self.fault == "missing gradient":
                parameters[-1].grad = None
            if self.fault == "not finite":
                parameters[0].grad.fill_(float("nan"))
            return outputs

        return replay


FAULTS = ["cannot be captured", "stale inputs", "wrong gradient", "missing gradient", "not finite"]


def passes(step, network, batches):
    """The loss, the gradients, the buffers and the next random number of one pass after another."""

    def compute(images, labels):
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        return (loss.detach(),)

    torch.manual_seed(0)
    found = []
    for images, labels in batches:
        (loss,) = step(compute, images, labels) if step else compute(images, labels)
        gradients = [parameter.grad.clone() for parameter in network.parameters()]
        found += [loss.clone(), *gradients, *(buffer.clone() for buffer in network.buffers()), torch.rand(1)]
        network.zero_grad()
    return found


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_a_captured_step_computes_what_the_plain_one_does_or_is_not_used(capsys, monkeypatch, fault):
    """Gradients, BatchNorm's statistics and random states (Dropout), over sizes and a last, smaller batch."""
    torch.manual_seed(1)
    sizes = [(4, 16), (4, 16), (2, 16), (4, 20), (4, 20), (3, 20)]
    batches = [(torch.randn(n, 3, side, side), torch.randint(10, (n,))) for n, side in sizes]
    network = new_network(dropout=0.5)
    expected = passes(None, copy.deepcopy(network), batches)
    capture = Recording(fault)
    monkeypatch.setattr(step_module, "capture_cuda_graph", capture)
    step = GraphedStep(network, 4, "float32")
    found = passes(step, network, batches)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert step.failed == (fault is not None)
    printed = capsys.readouterr().out
    if fault is None:
        assert printed == ""
        assert capture.shapes == [(4, 3, 16, 16), (4, 3, 20, 20)]
        assert step.replay is not None
    else:
        reason = "its results differ by"
        if fault == "cannot be captured":
            reason = "operation not permitted when stream is capturing"
        assert printed.startswith(f"training goes on without a CUDA graph: {reason}")
        assert printed.count("\n") == 1
        assert step.replay is None


def test_a_batch_that_overflows_is_not_captured(monkeypatch):
    network, capture = new_network(), Recording()
    monkeypatch.setattr(step_module, "capture_cuda_graph", capture)
    step = GraphedStep(network, 4, "float32")
    passes(step, network, [(torch.full((4, 3, 16, 16), float("inf")), torch.arange(4))])
    assert (capture.shapes, step.failed) == ([], False)


def test_differences_are_relative_and_near_zero_to_the_largest():
    one = torch.ones(4)
    assert largest_difference([one], [1.01 * one]) == pytest.approx(0.01, rel=1e-3)
    assert largest_difference([one, 1e-9 * one], [one, -1e-9 * one]) < 1e-6
    assert largest_difference([one, 0.1 * one], [one, -0.1 * one]) == pytest.approx(2)
    assert largest_difference([one], [one[:2]]) == largest_difference([one], []) == float("inf")
    assert largest_difference([one], [one / 0 - one / 0]) == float("inf")


def test_training_with_a_captured_step_is_training(monkeypatch):
    """An epoch through utils.train with the stand-in: the same weights and the same log line."""
    monkeypatch.setattr(step_module, "capture_cuda_graph", Recording())
    scores, weights = [], []
    for captured in (False, True):
        both, network = loaders(small_data(), 32, workers=0), new_network()
        state = state_of(SETTINGS, network, both)
        both[0].set_epoch(1)
        torch.manual_seed(0)
        scores.append(train(state, both[0], GraphedStep(network, 32, "float32") if captured else None)[:2])
        weights.append(torch.cat([parameter.flatten() for parameter in network.parameters()]))
    assert scores[0] == scores[1]
    assert torch.equal(*weights)
