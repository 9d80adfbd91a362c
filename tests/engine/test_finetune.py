"""--init: a run that starts from the weights of another; --track: its curves in a tracker."""

import copy
import hashlib
import signal
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from accelerate.state import GradientState
from small import SETTINGS, SmallNet, fit_small, small_data
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from model import NETWORKS
from s9 import records
from s9.engine.run import start_from
from s9.errors import Interrupted, UserError


@pytest.fixture
def first(tmp_path):
    """A finished run of ten classes."""
    fit_small(tmp_path / "first")
    return tmp_path / "first"


@pytest.mark.parametrize("classes", [("a", "b", "c"), tuple("0123456789"), tuple("abcdefghij")])
def test_the_weights_are_the_runs_and_the_classifier_is_new_where_classes_differ(first, classes):
    network = SmallNet(classes=len(classes))
    before = copy.deepcopy(network.state_dict())
    facts = start_from(first, network, classes)
    same = classes == small_data().classes
    original = safetensors.torch.load_file(first / records.WEIGHTS)
    for name, tensor in network.state_dict().items():
        source = original if same or not name.startswith("classifier.") else before
        assert torch.equal(tensor, source[name]), name
    digest = hashlib.sha256((first / records.WEIGHTS).read_bytes()).hexdigest()
    assert facts == {"folder": str(first), "sha256": digest, "new_classifier": not same}


def test_a_run_starts_from_the_weights_and_records_it_even_where_it_was_stopped(first, tmp_path):
    still = replace(SETTINGS, learning_rate=1e-6)
    with pytest.raises(Interrupted):
        fit_small(
            tmp_path / "run", still, init=first, after_epoch=lambda run: signal.raise_signal(signal.SIGINT)
        )
    with pytest.raises(UserError, match="began with other weights: use the same --init, or none"):
        fit_small(tmp_path / "run", still, init=tmp_path / "run", resume=True)
    network, _ = fit_small(tmp_path / "run", still, init=first / ".." / first.name, resume=True)
    original = records.read_weights(first, network)
    assert torch.allclose(network.convolution.weight, original["convolution.weight"], atol=1e-4)
    assert records.read(tmp_path / "run").facts["init"]["folder"] == str(first)


def test_a_run_of_another_network_is_refused(first, refused, tmp_path, monkeypatch):
    class Other(SmallNet):
        pass

    with pytest.raises(UserError, match="holds the weights of SmallNet, not of Other: name a run of Other"):
        fit_small(tmp_path / "second", make=Other, init=first)
    assert not (tmp_path / "second").exists()
    assert "is not the record of a run" in refused(train, "--dataset", "digits", "--init", tmp_path)


def test_a_tracker_gets_every_epoch(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setitem(NETWORKS, "small", SmallNet)
    monkeypatch.setattr(train, "load", lambda *_: small_data())
    arguments = ["--model", "small", "--dataset", "digits", "--epochs", "2", "--device", "cpu"]
    train.main([*arguments, "--track", "tensorboard", "--out", str(tmp_path / "run")])
    events = EventAccumulator(str(tmp_path / "run" / "S9")).Reload()
    history = records.read(tmp_path / "run").history
    for name in ("learning_rate", "train_loss", "train_accuracy", "test_loss", "test_accuracy"):
        sent = [(event.step, pytest.approx(event.value)) for event in events.Scalars(name)]
        assert sent == [(row.epoch, getattr(row, name)) for row in history]
    assert events.Tags()["images"] == []
    assert GradientState().num_steps == 1  # Or the environment would change the second epoch.


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wandb", "the tracker wandb is not installed: pip install wandb"),
        ("excel", "unknown tracker 'excel': choose one of"),
    ],
)
def test_a_tracker_that_is_missing_is_refused_before_anything_is_written(refused, tmp_path, name, message):
    line = refused(train, "--dataset", "digits", "--track", name, "--out", tmp_path / "run")
    assert message in line and not (tmp_path / "run").exists()
