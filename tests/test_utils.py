import copy
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_data import the_three
from small import SETTINGS, SmallNet, new_network, small_data

import utils
from dataset import loaders
from model import build
from s9 import records
from s9.engine import hardware
from s9.errors import UserError
from s9.settings import PRESETS, Settings

REPO = Path(__file__).parent.parent

TRAIN_LINE = re.compile(
    r"Train: Loss=\d+\.\d{4} Batch_id=2 Accuracy=\d+\.\d{2}: 100%\|█{10}\| "
    r"3/3 \[\d\d:\d\d<00:00, +[\d.]+(it/s|s/it)\]"
)
TEST_LINE = re.compile(r"Test set: Average loss: \d+\.\d{4}, Accuracy: (\d+)/30 \((\d+\.\d{2})%\)")


@pytest.fixture
def data():
    return small_data()


def fit(data, folder, network=None, settings=SETTINGS, **options):
    network = network or new_network()
    history = utils.fit(network, data, settings, folder, device="cpu", workers=0, **options)
    return network, history


def same_weights(first, second):
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(name == other and torch.equal(a, b) for (name, a), (other, b) in pairs)


def without_seconds(history):
    return [row[:-1] for row in history]


def test_the_log_is_printed_and_kept_in_the_three_line_form(data, tmp_path, capsys):
    _, history = fit(data, tmp_path / "run")
    log = records.read(tmp_path / "run").log
    epochs = log.split("\n\n")
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
    for line in log.splitlines():
        assert line in printed


def test_a_caller_hears_of_each_epoch_when_it_is_kept(data, tmp_path):
    heard = []

    def after_epoch(history):
        assert records.read(tmp_path / "run").history == history
        heard.append(len(history))

    fit(data, tmp_path / "run", after_epoch=after_epoch)
    assert heard == [1, 2, 3]


def test_the_history_is_what_its_file_says(data, tmp_path):
    _, history = fit(data, tmp_path / "run")
    assert records.read(tmp_path / "run").history == history


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


@pytest.mark.skipif("bfloat16" not in hardware._fast_on_cpu(), reason="this CPU has no bfloat16")
def test_tests_are_as_precise_as_training_and_the_last_one_is_float32(data, tmp_path):
    network, seen = new_network(), []
    network.classifier.register_forward_hook(
        lambda layer, inputs, logits: seen.append((layer.training, logits.dtype))
    )
    fit(data, tmp_path / "run", network, precision="bfloat16")
    tests = [dtype for training, dtype in seen if not training]
    assert tests[-3:] == [torch.bfloat16, torch.bfloat16, torch.float32]  # before them: the check of the size
    assert {dtype for training, dtype in seen if training} == {torch.bfloat16}


def test_a_network_is_shown_training_images_as_they_are_before_its_first_step(data, tmp_path):
    network, shown = new_network(), []
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    def init_whitening(images):
        shown.append(images.clone())
        assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())

    network.init_whitening = init_whitening
    fit(data, tmp_path / "run", network)
    (images,) = shown
    expected = (data.train_images / 255 - data.mean) / data.std
    np.testing.assert_allclose(images.permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)


def test_images_grow_as_the_settings_say(data, tmp_path, monkeypatch):
    network, sizes = new_network(), []
    network.register_forward_hook(
        lambda layer, inputs, _: sizes.append(inputs[0].shape[-1]) if layer.training else None
    )
    fit(data, tmp_path / "run", network, settings=replace(SETTINGS, first_size=24))
    assert sizes == [24] * 3 + [28] * 3 + [32] * 3


def test_the_augmentations_probability_and_shift_are_the_settings(data, tmp_path, monkeypatch):
    made = []
    transform = utils.train_transform
    monkeypatch.setattr(utils, "train_transform", lambda *given: made.append(transform(*given)) or made[-1])
    fit(data, tmp_path / "run", settings=replace(SETTINGS, augmentation=0.25, shift=0.2))
    assert [step.p for step in the_three(made[0])] == [0.5, 0.25, 0.25]
    assert the_three(made[0])[1].shift_limit_x == (-0.2, 0.2)


def test_label_smoothing_changes_what_is_learnt(data, tmp_path):
    plain, _ = fit(
        data, tmp_path / "plain", settings=Settings(dataset="digits", epochs=1, label_smoothing=0.0)
    )
    smooth, _ = fit(
        data, tmp_path / "smooth", settings=Settings(dataset="digits", epochs=1, label_smoothing=0.2)
    )
    assert not same_weights(plain, smooth)


def test_test_counts_every_image_once_and_changes_nothing(data):
    network = new_network().train()
    before = copy.deepcopy(network)
    _, test_loader = loaders(data, 32, workers=0)
    scores = utils.test(network, test_loader)
    assert same_weights(network, before)
    with torch.no_grad():
        logits = torch.cat([before.eval()(images) for images, _ in test_loader])
    labels = torch.from_numpy(data.test_labels)
    assert scores.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert scores.accuracy == pytest.approx(100 * (logits.argmax(1) == labels).float().mean().item())


def test_probabilities_are_the_test_sets_in_its_order(data):
    network = new_network()
    given = utils.probabilities(network, data)
    assert given.shape == (30, 10)
    assert given.dtype == np.float32
    assert np.allclose(given.sum(1), 1, atol=1e-5)
    _, test_loader = loaders(data, workers=0)
    expected = utils.test(network, test_loader).accuracy
    assert 100 * (given.argmax(1) == data.test_labels).mean() == pytest.approx(expected)


def test_the_saved_weights_give_the_last_rows_accuracy_in_float32(data, tmp_path):
    network, history = fit(data, tmp_path / "run")
    fresh = SmallNet()
    records.load_weights(tmp_path / "run", fresh)
    _, test_loader = loaders(data, workers=0)
    scores = utils.test(fresh, test_loader)
    assert (round(scores.loss, 4), round(scores.accuracy, 2)) == history[-1][4:6]
    images = torch.randn(2, 3, 32, 32)
    # Mixed precision must not stay behind in the network that the caller goes on with.
    assert torch.allclose(network.eval()(images), fresh.eval()(images), atol=1e-5)


def test_the_same_seed_gives_the_same_run_whatever_happens_in_between(data, tmp_path):
    first, history = fit(data, tmp_path / "first")
    network = new_network()
    torch.rand(1000)
    np.random.default_rng().random()
    second, again = fit(data, tmp_path / "second", network)
    assert same_weights(first, second)
    assert without_seconds(history) == without_seconds(again)
    other, _ = fit(data, tmp_path / "other", settings=Settings(**{**vars(SETTINGS), "seed": 1}))
    assert not same_weights(first, other)


def fast_network():
    """Its first layer is made for the data, and it takes images that grow."""
    torch.manual_seed(1)
    return build("fast")


@pytest.mark.parametrize("stopped_in", [1, 2, 3])
@pytest.mark.parametrize(
    ("make", "others"),
    [(new_network, {}), (new_network, {"muon_rate": 0.05}), (fast_network, {"first_size": 24})],
)
def test_a_stopped_run_resumes_to_the_bit(data, tmp_path, monkeypatch, stopped_in, make, others):
    settings = replace(SETTINGS, **others)
    whole, history = fit(data, tmp_path / "whole", make(), settings)
    calls = []

    def stop(*arguments, **options):
        calls.append(None)
        if len(calls) == stopped_in:
            raise KeyboardInterrupt
        return utils_test(*arguments, **options)

    utils_test = utils.test
    monkeypatch.setattr(utils, "test", stop)
    with pytest.raises(KeyboardInterrupt):
        fit(data, tmp_path / "run", make(), settings)
    monkeypatch.setattr(utils, "test", utils_test)
    assert (tmp_path / "run" / records.CHECKPOINT).exists() == (stopped_in > 1)
    resumed, resumed_history = fit(data, tmp_path / "run", make(), settings, resume=True)
    assert same_weights(whole, resumed)
    assert without_seconds(history) == without_seconds(resumed_history)
    assert records.read(tmp_path / "run").log.count("Test set") == 3


def test_a_finished_run_resumes_to_itself(data, tmp_path):
    first, history = fit(data, tmp_path / "run")
    again, same_history = fit(data, tmp_path / "run", resume=True)
    assert same_weights(first, again)
    assert history == same_history


def test_a_run_is_not_overwritten(data, tmp_path):
    fit(data, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(UserError, match="already holds a run"):
        fit(data, tmp_path / "run")
    with pytest.raises(UserError, match="other settings"):
        fit(data, tmp_path / "run", settings=Settings(**{**vars(SETTINGS), "epochs": 5}), resume=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_results_of_one_data_set_cannot_be_filed_under_another(data, tmp_path):
    with pytest.raises(UserError, match="settings are for cifar10, the data is digits"):
        fit(data, tmp_path / "run", settings=Settings(epochs=1))
    assert not (tmp_path / "run").exists()


def test_a_validation_run_never_sees_the_test_set(data, tmp_path):
    settings = Settings(**{**vars(SETTINGS), "validation": True, "epochs": 1})
    _, history = fit(data, tmp_path / "run", settings=settings)
    spoilt = data._replace(test_images=255 - data.test_images, test_labels=9 - data.test_labels)
    _, same = fit(spoilt, tmp_path / "spoilt", settings=settings)
    assert without_seconds(history) == without_seconds(same)
    assert "Validation set: Average loss: " in records.read(tmp_path / "run").log


@pytest.mark.parametrize(
    ("device", "precision", "message"),
    [
        ("tpu", "auto", "unknown device 'tpu': choose one of auto, cpu, cuda, mps"),
        ("cpu", "int8", "unknown precision 'int8': choose one of auto, float32"),
        ("cpu", "float16", "cpu has no fast float16 here"),
    ],
)
def test_hardware_that_is_not_there_is_named(device, precision, message):
    with pytest.raises(UserError, match=message):
        hardware.make_accelerator(device, precision)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_missing_gpu_is_named():
    with pytest.raises(UserError, match="this machine has no cuda device: use --device auto"):
        hardware.make_accelerator("cuda")


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
    assert hardware._fast_on_cpu() == (["bfloat16", "float32"] if bfloat16 else ["float32"])


@pytest.mark.parametrize(
    ("cuda", "mps", "epochs"), [(True, False, 24), (False, True, 24), (False, False, 12)]
)
def test_a_short_run_is_shorter_without_a_gpu(monkeypatch, cuda, mps, epochs):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert hardware.short_run() == epochs


@pytest.mark.parametrize(("name", "epochs", "least"), [("notebook", 12, 85), ("short", 24, 90)])
def test_a_short_run_reaches_what_is_said_of_it(name, epochs, least):
    run = records.read(REPO / "results" / name)
    assert run.settings == replace(PRESETS["best"], epochs=epochs)
    assert run.history[-1].test_accuracy >= least


def test_one_accelerator_does_not_bind_the_next():
    assert hardware.make_accelerator("cpu", "float32").mixed_precision == "no"
    fastest = hardware.make_accelerator("cpu").mixed_precision
    assert fastest in ("bf16", "no")
    assert hardware.make_accelerator("cpu", "float32").mixed_precision == "no"
