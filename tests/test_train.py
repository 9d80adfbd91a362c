import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import long_tests

import dataset
import train
from model import NETWORKS
from s9 import records
from s9.settings import PRESETS

REPO = Path(__file__).parent.parent


def run(*arguments):
    return train.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("preset", PRESETS)
def test_training_leaves_a_run_that_evaluates_to_its_own_log(tmp_path, capsys, monkeypatch, preset):
    folder, digits = tmp_path / "run", dataset.load("digits")
    few = digits._replace(train_images=digits.train_images[:300], train_labels=digits.train_labels[:300])
    monkeypatch.setattr(train, "load", lambda *_: few)
    run("--preset", preset, "--dataset", "digits", "--epochs", 1, "--workers", 0, "--out", folder)
    last = records.read(folder).log.strip().splitlines()[-1]
    capsys.readouterr()
    run("--evaluate", folder)
    assert capsys.readouterr().out.strip() == last
    assert last.startswith("Test set: Average loss: ")


def test_options_change_single_settings_of_a_preset():
    options = train.make_parser().parse_args("--preset fast --epochs 3 --seed 4 --validation".split())
    assert train.chosen_settings(options) == replace(PRESETS["fast"], epochs=3, seed=4, validation=True)
    options = train.make_parser().parse_args([])
    assert train.chosen_settings(options) == PRESETS["reference"]


def test_the_help_tells_every_presets_defaults(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    words = " ".join(capsys.readouterr().out.split())
    assert ", ".join(f"{name} {settings.epochs}" for name, settings in PRESETS.items()) in words


def test_resume_needs_a_run(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    assert "runs holds no run: train one first" in refused(train, "--resume", "--dataset", "digits")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "resnet"], "unknown model 'resnet': choose one of reference, best, dilated, fast"),
        (["--dataset", "mnist"], "unknown dataset 'mnist': choose one of auto, cifar10, digits"),
        (["--device", "tpu", "--dataset", "digits"], "unknown device 'tpu'"),
        (["--precision", "int4", "--dataset", "digits"], "unknown precision 'int4'"),
        (["--epochs", "0"], "--epochs 0 makes no sense"),
        (["--epochs", "three"], "--epochs: invalid int value: 'three'"),
        (["--batch-size", "-1"], "--batch-size -1 makes no sense"),
        (["--batch-size", "60000"], "--batch-size 60000 makes no sense"),
        (["--learning-rate", "0"], "--learning-rate 0.0 makes no sense"),
        (["--learning-rate", "nan"], "--learning-rate nan makes no sense"),
        (["--weight-decay", "-1"], "--weight-decay -1.0 makes no sense"),
        (["--label-smoothing", "2"], "--label-smoothing 2.0 makes no sense"),
        (["--workers", "-2", "--dataset", "digits"], "-2 workers make no sense"),
        (["--seed", "-1"], "--seed -1 makes no sense"),
        (["--augmentation", "1.5"], "--augmentation 1.5 makes no sense"),
        (["--shift", "-0.1"], "--shift -0.1 makes no sense"),
        (["--first-size", "4"], "--first-size 4 makes no sense"),
        (
            ["--preset", "dilated", "--first-size", "16", "--dataset", "digits"],
            "--first-size 16 does not fit the model dilated",
        ),
        (["--first-size", "64"], "--first-size 64 makes no sense"),
        (["--first-size", "20", "--dataset", "digits"], "--first-size 20 does not fit the model reference"),
        (["--preset", "slow"], "unknown preset 'slow': choose one of reference, best, dilated, fast"),
        (["--data-dir", "nowhere"], "data folder nowhere does not exist"),
        (["--evaluate", "nowhere"], "is not the record of a run"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(tmp_path, refused, arguments, message):
    out = [] if "--evaluate" in arguments else ["--out", tmp_path / "run"]
    assert message in refused(train, *arguments, *out)
    assert not (tmp_path / "run").exists()


def test_an_output_folder_that_cannot_be_written_is_named(tmp_path, refused):
    (tmp_path / "file").touch()
    line = refused(train, "--dataset", "digits", "--out", tmp_path / "file" / "run")
    assert "cannot write to" in line
    assert "choose another output folder" in line


def test_the_script_itself_ends_with_2_and_no_traceback():
    command = [sys.executable, "train.py", "--model", "nonesuch"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 2
    names = ", ".join(NETWORKS)
    assert done.stderr == f"train.py: error: unknown model 'nonesuch': choose one of {names}\n"


RUNS = sorted(path.parent for path in REPO.glob("results/**/weights.safetensors"))


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: str(folder.relative_to(REPO)))
def test_the_committed_weights_give_the_committed_accuracy(folder, cifar10_folder, capsys):
    if folder != records.leading_run(REPO / "results") and not long_tests():
        pytest.skip("half a minute a network, of which usually one is tested: set S9_LONG=1")
    run("--evaluate", folder, "--data-dir", cifar10_folder)
    printed = capsys.readouterr().out.strip()
    committed = records.read(folder)
    assert f"({committed.history[-1].test_accuracy:.2f}%)" in printed
    assert f"({committed.history[-1].test_accuracy:.2f}%)" in committed.log.strip().splitlines()[-1]
