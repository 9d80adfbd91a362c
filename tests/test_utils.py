import copy
import itertools
import re
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import REPO
from made_data import the_three
from small import SETTINGS, SmallNet, evidence, fit_small, new_network, small_data

import utils
from dataset import loaders
from model import build
from s9 import records
from s9.engine import hardware
from s9.errors import UserError
from s9.settings import PRESETS, Settings

TRAIN_LINE = re.compile(
    r"Train: Loss=\d+\.\d{4} Batch_id=2 Accuracy=\d+\.\d{2}: 100%\|█{10}\| "
    r"3/3 \[\d\d:\d\d<00:00, +[\d.]+(it/s|s/it)\]"
)
TEST_LINE = re.compile(r"Test set: Average loss: \d+\.\d{4}, Accuracy: (\d+)/30 \((\d+\.\d{2})%\)")


@pytest.fixture
def data():
    return small_data()


def same_weights(first, second):
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(name == other and torch.equal(a, b) for (name, a), (other, b) in pairs)


def test_the_log_is_printed_and_kept_in_the_three_line_form(tmp_path, capsys):
    _, history = fit_small(tmp_path / "run")
    run = records.read(tmp_path / "run")
    assert run.history == history
    epochs = run.log.split("\n\n")
    assert epochs.pop() == ""
    assert len(epochs) == len(history) == 3
    for number, (block, row) in enumerate(zip(epochs, history, strict=True), 1):
        epoch_line, train_line, test_line = block.split("\n")
        assert epoch_line == f"Epoch {number}"
        assert TRAIN_LINE.fullmatch(train_line), train_line
        assert f"Accuracy={row.train_accuracy:.2f}:" in train_line
        correct, percent = TEST_LINE.fullmatch(test_line).groups()
        assert percent == f"{row.test_accuracy:.2f}" == f"{100 * int(correct) / 30:.2f}"
    printed = capsys.readouterr().out
    assert printed.startswith(f"small on digits for 3 epochs, seed 0: saved in {tmp_path / 'run'}\n")
    for line in run.log.splitlines():
        assert line in printed


def test_a_process_without_a_test_image_adds_nothing(monkeypatch):
    loader = SimpleNamespace(processes=3, process=0, device="cpu")
    monkeypatch.setattr(utils, "predict", lambda *_: (torch.zeros(0, 10), torch.zeros(0, dtype=torch.int64)))
    monkeypatch.setattr(utils, "reduce", lambda sums, _: sums + torch.tensor([3.0, 1.0, 2.0]))
    assert utils.test(None, loader)[:2] == (1.5, 50.0)


def test_train_figures_are_means_over_images_without_label_smoothing(data):
    network = new_network()
    network.dropout.p = 0.0
    train_loader, _ = loaders(data, 32, seed=0, workers=0)
    train_loader.set_epoch(1)
    accelerator = hardware.make_accelerator("cpu", "float32")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    twin = copy.deepcopy(network).train()
    scores = utils.train(network, train_loader, optimizer, scheduler, accelerator, label_smoothing=0.3)
    losses, hits = [], []
    with torch.no_grad():
        for images, labels in train_loader:
            logits = twin(images)
            losses += F.cross_entropy(logits, labels, reduction="none").tolist()
            hits += (logits.argmax(1) == labels).tolist()
    assert len(losses) == 80
    assert scores.loss == pytest.approx(np.mean(losses), rel=1e-4)
    assert scores.accuracy == pytest.approx(100 * np.mean(hits))


def hooked(seen, note):
    """Makes a SmallNet that appends note(network, images, logits) of each forward to `seen`."""

    def make():
        network = SmallNet()
        network.register_forward_hook(lambda layer, inputs, out: seen.append(note(layer, inputs[0], out)))
        return network

    return make


@pytest.mark.skipif("bfloat16" not in hardware.fast_precisions("cpu"), reason="this CPU has no bfloat16")
def test_tests_are_as_precise_as_training_and_the_last_one_is_float32(tmp_path):
    seen = []
    make = hooked(seen, lambda layer, images, logits: (layer.training, logits.dtype))
    fit_small(tmp_path / "run", make=make, hardware={"precision": "bfloat16"})
    assert seen.pop(0) == (False, torch.float32)  # the check of the size
    tests = [dtype for training, dtype in seen if not training]
    assert tests[-3:] == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert {dtype for training, dtype in seen if training} == {torch.bfloat16}


def test_init_whitening_sees_training_images_before_the_first_step(data, tmp_path):
    shown = []

    class Whitened(SmallNet):
        def init_whitening(self, images):
            torch.manual_seed(0)
            assert same_weights(self, SmallNet())
            shown.append(images.clone())

    fit_small(tmp_path / "run", make=Whitened)
    (images,) = shown
    expected = (data.train_images / 255 - data.mean) / data.std
    np.testing.assert_allclose(images.permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)


def test_the_images_sizes_and_augmentations_are_the_settings(tmp_path, monkeypatch):
    seen, made, transform = [], [], utils.train_transform
    monkeypatch.setattr(utils, "train_transform", lambda *given: made.append(transform(*given)) or made[-1])
    make = hooked(seen, lambda layer, images, _: (layer.training, images.shape[-1]))
    fit_small(tmp_path / "run", replace(SETTINGS, first_size=24, augmentation=0.25, shift=0.2), make)
    assert [size for training, size in seen if training] == [24] * 3 + [28] * 3 + [32] * 3
    assert [step.p for step in the_three(made[0])] == [0.5, 0.25, 0.25]
    assert the_three(made[0])[1].shift_limit_x == (-0.2, 0.2)


def test_test_and_probabilities_take_every_image_once_in_order_and_change_nothing(data):
    network = new_network().train()
    before = copy.deepcopy(network)
    _, test_loader = loaders(data, 32, workers=0)
    scores, probabilities = utils.test(network, test_loader), utils.probabilities(network, data)
    assert same_weights(network, before)
    with torch.no_grad():
        logits = torch.cat([before.eval()(images) for images, _ in test_loader])
    labels = torch.from_numpy(data.test_labels)
    assert scores.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert scores.accuracy == pytest.approx(100 * (logits.argmax(1) == labels).float().mean().item())
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, logits.softmax(1).numpy(), atol=1e-6)


def test_the_saved_weights_give_the_last_rows_accuracy_in_float32(data, tmp_path, monkeypatch):
    network, history = fit_small(tmp_path / "run", hardware={"precision": "auto"})
    monkeypatch.setitem(utils.build.__globals__["NETWORKS"], "small", lambda classes: SmallNet())
    fresh = utils.trained_network(records.read(tmp_path / "run"), data)
    _, test_loader = loaders(data, workers=0)
    scores = utils.test(fresh, test_loader)
    assert (round(scores.loss, 4), round(scores.accuracy, 2)) == history[-1][4:6]
    images = torch.randn(2, 3, 32, 32)
    # The network that fit returns must not stay in mixed precision.
    assert torch.allclose(network.eval()(images), fresh.eval()(images), atol=1e-5)
    with pytest.raises(UserError, match="the run was trained on other data"):
        utils.trained_network(records.read(tmp_path / "run"), data._replace(test_labels=data.train_labels))


def test_a_run_repeats_to_the_bit_whatever_ran_before(tmp_path):
    first, _ = fit_small(None, runs=tmp_path)
    torch.rand(1000)
    np.random.rand(3)
    with torch.no_grad():
        first.classifier.weight.zero_()
    second, _ = fit_small(None, runs=tmp_path)
    assert evidence(tmp_path / "small-digits-1") == evidence(tmp_path / "small-digits-2")
    for change in ({"seed": 1}, {"label_smoothing": 0.3}):
        other, _ = fit_small(None, replace(SETTINGS, **change), runs=tmp_path)
        assert not same_weights(second, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": Settings(epochs=1)}, "settings are for cifar10, the data is digits"),
        ({"data": small_data()._replace(classes=("a", "b"))}, "digits: labels must be 0 to 1, got 0 to 9"),
        ({"folder": None, "resume": True}, "holds no run: train one first"),
        ({"resume": True}, "nothing to resume in .*run: it holds no checkpoint"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path, monkeypatch, options, message):
    with pytest.raises(UserError, match=message):
        fit_small(**{"folder": tmp_path / "run", "runs": tmp_path / "runs"} | options)
    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"default dtype is torch\.float64"):
        patch.setattr(torch, "get_default_dtype", lambda: torch.float64)
        fit_small(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_fifty_starts_at_the_same_moment_get_fifty_folders(tmp_path):
    """Into free folders; then into one that is named, which a single one of them gets."""

    def start_together(*arguments):
        barrier = threading.Barrier(50)

        def start(_):
            barrier.wait()
            try:
                return str(records.create_run(SETTINGS, *arguments))
            except UserError as error:
                return str(error)

        with ThreadPoolExecutor(50) as threads:
            return Counter(threads.map(start, range(50)))

    free = start_together(None, tmp_path / "runs")
    assert set(free) == {str(tmp_path / "runs" / f"small-digits-{number}") for number in range(1, 51)}
    named = start_together(tmp_path / "named")
    refusal = f"{tmp_path / 'named'} already holds a run: choose another folder"
    refusal += ", or delete its log.txt if no run is under way there"
    assert named == {str(tmp_path / "named"): 1, refusal: 49}


def fast():
    """Its first layer is computed from the data, and it accepts images that grow."""
    return build("fast")


@pytest.mark.parametrize(
    ("make", "others", "stopped_in"),
    [(SmallNet, {"muon_rate": 0.05}, 2), (fast, {"first_size": 24}, 1), (fast, {"first_size": 24}, 3)],
)
def test_a_stopped_run_resumes_to_the_bit(tmp_path, monkeypatch, make, others, stopped_in):
    settings = replace(SETTINGS, **others)
    fit_small(tmp_path / "whole", settings, make)
    calls, utils_test = itertools.count(1), utils.test

    def stop(*arguments):
        if next(calls) == stopped_in:
            raise KeyboardInterrupt
        return utils_test(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(utils, "test", stop)
        with pytest.raises(KeyboardInterrupt):
            fit_small(None, settings, make, runs=tmp_path / "runs")
    fit_small(None, settings, make, runs=tmp_path / "runs", resume=True)
    (folder,) = (tmp_path / "runs").iterdir()
    assert evidence(folder) == evidence(tmp_path / "whole")


def test_a_finished_run_resumes_to_itself_and_is_not_overwritten(tmp_path):
    first, history = fit_small(tmp_path / "run")
    again, same_history = fit_small(tmp_path / "run", resume=True)
    assert same_weights(first, again)
    assert history == same_history
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(UserError, match="already holds a run"):
        fit_small(tmp_path / "run")
    with pytest.raises(UserError, match=r"cannot resume .*other settings \(epochs 3 there, 5 here\)"):
        fit_small(tmp_path / "run", replace(SETTINGS, epochs=5), resume=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_validation_run_never_sees_the_test_set(data, tmp_path):
    settings = replace(SETTINGS, epochs=1, validation=True)
    fit_small(tmp_path / "run", settings)
    spoilt = data._replace(test_images=255 - data.test_images, test_labels=9 - data.test_labels)
    fit_small(tmp_path / "spoilt", settings, data=spoilt)
    assert evidence(tmp_path / "run") == evidence(tmp_path / "spoilt")
    assert "Validation set: Average loss: " in records.read(tmp_path / "run").log


@pytest.mark.parametrize(
    ("device", "precision", "message"),
    [
        ("cpu", "float16", "cpu has no fast float16 here"),
        ("cuda", "auto", "this machine has no cuda device: use --device auto"),
    ],
)
def test_hardware_that_is_not_there_is_named(monkeypatch, device, precision, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=message):
        hardware.make_accelerator(device, precision)


@pytest.mark.parametrize(
    ("machine", "mkldnn", "instructions", "onednn", "bfloat16"),
    [
        ("x86_64", True, True, True, True),
        ("AMD64", True, False, True, False),  # AVX512 alone: oneDNN would emulate it, at half the speed
        ("aarch64", True, False, True, True),
        ("aarch64", True, False, False, False),
        ("arm64", False, False, None, False),  # a build without oneDNN lacks its operators
    ],
)
def test_bfloat16_is_for_cpus_that_have_instructions_for_it(
    monkeypatch, machine, mkldnn, instructions, onednn, bfloat16
):
    monkeypatch.setattr(hardware.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: mkldnn)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions)
    supported = {} if onednn is None else {"_is_mkldnn_bf16_supported": lambda: onednn}
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(**supported))
    assert hardware.fast_precisions("cpu") == (["bfloat16", "float32"] if bfloat16 else ["float32"])


@pytest.mark.parametrize(
    ("name", "epochs", "least"), [("short", 12, 85), ("notebook", 24, 90), ("long", 200, 93)]
)
def test_a_run_of_another_length_reaches_what_is_said_of_it(name, epochs, least):
    run = records.read(REPO / "results" / name)
    assert run.settings == replace(PRESETS["best"], epochs=epochs)
    assert run.history[-1].test_accuracy >= least
