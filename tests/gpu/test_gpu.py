"""Tests that need a CUDA device: the captured step against the plain one, and what surrounds it."""

import copy
import os
import signal
from dataclasses import replace

import pytest
import torch
from PIL import Image
from small import SETTINGS, SmallNet, fit_small, new_network, small_data
from torch import nn

import hubconf
import predict
import utils
from dataset import loaders
from model import NETWORKS, build
from s9 import records
from s9.engine import checkpoint
from s9.engine.hardware import PRECISIONS, make_accelerator
from s9.engine.optimizer import make_optimizer
from s9.engine.progress import ProgressBar
from s9.engine.step import GraphedStep, largest_difference
from s9.errors import Interrupted, RunError
from s9.settings import PRESETS, image_size

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")

ROUNDING = {"float32": 0.01, "float16": 0.02, "bfloat16": 0.1}
"""Largest relative difference of gradients that are added up in another order."""


def passes(network, batches, precision, graph):
    """Loss, float buffers and gradients after each batch, the random number that follows, and the step."""
    accelerator = make_accelerator(DEVICE, precision)
    if accelerator.scaler is not None:  # With its own first scale, gradients overflow, which is not compared.
        accelerator.scaler = torch.amp.GradScaler(DEVICE, init_scale=128.0)
    prepared = accelerator.prepare(nn.Sequential(network))
    step = GraphedStep(network, len(batches[0][1]), precision) if graph else None

    def forward_backward(images, labels):
        loss, _ = utils.cross_entropies(prepared(images), labels, 0.1)
        accelerator.backward(loss)
        return (loss.detach(),)

    prepared.train()
    torch.manual_seed(0)
    found = []
    for batch in batches:
        (loss,) = step(forward_backward, *batch) if graph else forward_backward(*batch)
        buffers = [buffer.clone() for buffer in network.buffers() if buffer.is_floating_point()]
        gradients = [parameter.grad.clone() for parameter in network.parameters() if parameter.requires_grad]
        found.append(([loss.clone()], buffers, gradients))
        network.zero_grad()
    return found, torch.rand(1, device=DEVICE).item(), step


def batches_of(sizes):
    torch.manual_seed(1)
    images = [torch.randn(count, 3, side, side) for count, side in sizes]
    labels = [torch.randint(10, (count,), device=DEVICE) for count, _ in sizes]
    images = [image.to(DEVICE, memory_format=torch.channels_last) for image in images]
    return list(zip(images, labels, strict=True))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", [*NETWORKS, "dropout"])
def test_the_graph_computes_what_the_plain_pass_does(name, precision):
    """For every size of image twice, and a smaller last batch; the same weights throughout."""
    if precision == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this GPU has no bfloat16")
    settings = PRESETS.get(name, SETTINGS)
    sides = sorted({image_size(settings, epoch) for epoch in range(1, settings.epochs + 1)})
    batches = batches_of([(count, side) for side in sides for count in (64, 64, 40)])
    torch.manual_seed(2)
    network = (build(name) if name in NETWORKS else SmallNet(dropout=0.5)).to(DEVICE)
    network.to(memory_format=torch.channels_last)
    expected, random, _ = passes(copy.deepcopy(network), batches, precision, graph=False)
    found, same_random, step = passes(network, batches, precision, graph=True)
    assert step.replay is not None and not step.failed
    assert same_random == random
    for one, other in zip(expected, found, strict=True):
        for part, its in zip(one, other, strict=True):
            assert largest_difference(part, its) < ROUNDING[precision]


@pytest.mark.parametrize("name", ["reference", "best"])
def test_the_optimizer_updates_as_on_a_cpu(name):
    torch.manual_seed(0)
    first = build(name)
    second = copy.deepcopy(first).to(DEVICE)
    pairs = [(network, *make_optimizer(network, PRESETS[name], 100)) for network in (first, second)]
    for _ in range(3):
        gradients = [torch.randn_like(parameter) for parameter in first.parameters()]
        for network, optimizer, scheduler in pairs:
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter.grad = gradient.to(parameter.device, copy=True)
            optimizer.step()
            scheduler.step()
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(other.cpu(), one, atol=1e-4, rtol=1e-3)


def test_the_loader_gives_the_device_what_it_gives_a_cpu():
    both = [loaders(small_data(), 32, workers=1, device=device)[0] for device in ("cpu", DEVICE)]
    for epoch in (1, 2):
        for loader in both:
            loader.set_epoch(epoch, size=24)
        for (images, labels), (sent, sent_labels) in zip(*both, strict=True):
            torch.testing.assert_close(sent.cpu(), images, atol=1e-4, rtol=1e-4)
            assert torch.equal(sent_labels.cpu(), labels)


def fit_on_gpu(folder, settings=SETTINGS, make=new_network, graph=True, **options):
    return fit_small(folder, settings, make, hardware={"device": DEVICE, "graph": graph}, **options)


def weights_of(network):
    return [tensor.float().cpu() for tensor in network.state_dict().values()]


def test_a_run_with_the_graph_is_the_run_without(tmp_path):
    settings = replace(SETTINGS, muon_rate=0.02, first_size=24)
    network, history = fit_on_gpu(tmp_path / "graph", settings)
    other, without = fit_on_gpu(tmp_path / "plain", settings, graph=False)
    for row, same in zip(history, without, strict=True):
        assert row.train_loss == pytest.approx(same.train_loss, rel=0.01)
    assert largest_difference(weights_of(other), weights_of(network)) < 0.05
    facts = [records.read(tmp_path / name).facts["cuda_graph"] for name in ("graph", "plain")]
    assert facts == [True, False]


def test_a_run_repeats_to_the_bit(tmp_path):
    def make():
        torch.manual_seed(1)
        return build("best")

    settings = replace(SETTINGS, muon_rate=0.02, first_size=28, learning_rate=0.01)
    both = [fit_on_gpu(tmp_path / name, settings, make) for name in ("one", "two")]
    (network, history), (other, same) = both
    assert [row[:-1] for row in history] == [row[:-1] for row in same]
    assert all(torch.equal(*pair) for pair in zip(weights_of(network), weights_of(other), strict=True))


def after_batches(monkeypatch, count, action):
    """Has `action` done after so many batches of a run: a graph's own pass runs no Python to do it in."""
    batch_done, seen = ProgressBar.batch_done, []

    def done(bar, text=None):
        seen.append(None)
        if len(seen) == count:
            action()
        return batch_done(bar, text)

    monkeypatch.setattr(ProgressBar, "batch_done", done)


def test_an_interrupted_run_resumes(tmp_path, monkeypatch):
    whole, history = fit_on_gpu(tmp_path / "whole")
    with monkeypatch.context() as patch:
        after_batches(patch, 4, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(Interrupted, match="in epoch 2 by SIGINT"):
            fit_on_gpu(tmp_path / "run")
    resumed, rows = fit_on_gpu(tmp_path / "run", resume=True)
    assert [row.epoch for row in rows] == [1, 2, 3]
    assert largest_difference(weights_of(whole), weights_of(resumed)) < 0.01
    assert rows[-1].train_loss == pytest.approx(history[-1].train_loss, rel=0.01)


def test_a_run_of_a_cpu_goes_on_in_float16(tmp_path):
    fit_small(tmp_path)
    (tmp_path / checkpoint.PREVIOUS).replace(tmp_path / records.CHECKPOINT)  # As if stopped in epoch 3.
    _, rows = fit_small(tmp_path, resume=True, hardware={"device": DEVICE, "precision": "float16"})
    assert [row.epoch for row in rows] == [1, 2, 3]


def test_what_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    network = new_network()
    after_batches(monkeypatch, 4, lambda: network.classifier.weight.data.fill_(float("nan")))
    with pytest.raises(RunError, match="epoch 2, batch 1: the loss is nan"):
        fit_on_gpu(tmp_path / "run", make=lambda: network)


class Asks(SmallNet):
    """Asks the device for a number, which cannot be captured."""

    def forward(self, images):
        return super().forward(images) * (1 if images.sum().item() else 2)


def test_a_step_that_cannot_be_captured_is_computed_plainly(tmp_path, capsys):
    """Dropout's generator and the loader's memory still work after it."""
    network, history = fit_on_gpu(tmp_path / "run", make=Asks)
    assert capsys.readouterr().out.count("training goes on without a CUDA graph: ") == 1
    other, without = fit_on_gpu(tmp_path / "plain", make=Asks, graph=False)
    assert largest_difference(weights_of(other), weights_of(network)) < 0.01
    assert history[-1].train_loss == pytest.approx(without[-1].train_loss, rel=0.01)
    assert records.read(tmp_path / "run").facts["cuda_graph"] is False


def test_memory_stays_flat_over_epochs_and_sizes(tmp_path):
    allocated, reserved = [], []

    def note(_):
        allocated.append(torch.cuda.memory_allocated())
        reserved.append(torch.cuda.memory_reserved())

    settings = replace(SETTINGS, epochs=12, first_size=20)  # Four sizes, three epochs each.
    fit_on_gpu(tmp_path / "run", settings, make=lambda: build("best"), after_epoch=note)
    assert allocated[11] == pytest.approx(allocated[9], rel=0.01)
    assert reserved[11] <= 1.01 * reserved[9]
    assert allocated[11] < 3 * allocated[0]


def test_predict_and_hub_give_on_the_gpu_what_they_give_on_a_cpu(tmp_path, capsys):
    image = Image.effect_noise((32, 32), 80).convert("RGB")
    image.save(tmp_path / "photo.png")
    lines = []
    for device in ("cpu", DEVICE):
        predict.main(["--device", device, str(tmp_path / "photo.png")])
        lines.append(capsys.readouterr().out.split("%")[0].rsplit(" ", 1))
    assert lines[0][0] == lines[1][0]
    assert float(lines[0][1]) == pytest.approx(float(lines[1][1]), abs=1)
    network, images = hubconf.best(pretrained=True), hubconf.transform()(image)[None]
    with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
        logits = network(images)
        torch.testing.assert_close(network.to(DEVICE)(images.to(DEVICE)).cpu(), logits, atol=1e-3, rtol=1e-3)
