from dataclasses import replace

import pytest
from conftest import REPO, long_tests

import dataset
import train
from s9 import records
from s9.settings import PRESETS


def run(*arguments):
    return train.main([str(argument) for argument in arguments])


COUNTS = {"train_images": 300, "train_labels": 300, "test_images": 60, "test_labels": 60}


@pytest.mark.parametrize("preset", PRESETS)
def test_training_leaves_a_run_that_evaluates_to_its_own_log(tmp_path, capsys, monkeypatch, preset):
    folder, digits = tmp_path / "run", dataset.load("digits")
    few = digits._replace(**{name: getattr(digits, name)[:count] for name, count in COUNTS.items()})
    for name in ("load", "load_recorded"):
        monkeypatch.setattr(train, name, lambda *_: few)
    run("--preset", preset, "--dataset", "digits", "--epochs", 1, "--workers", 0, "--out", folder)
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f"{PRESETS[preset].model} on digits for 1 epochs, seed 0: saved in {folder}"
    last = records.read(folder).log.strip().splitlines()[-1]
    run("--evaluate", folder)
    assert capsys.readouterr().out.strip() == last
    assert last.startswith("Test set: Average loss: ")
    other = few._replace(test_labels=few.test_labels[::-1].copy())
    monkeypatch.setattr(train, "load_recorded", lambda *_: other)
    run("--evaluate", folder)
    said = f"These are other data (fingerprint {other.fingerprint()}) than the run's ("
    assert capsys.readouterr().out.startswith(said)


def chosen(line):
    return train.chosen_settings(train.make_parser().parse_args(line.split()))


def test_options_change_single_settings_of_a_preset():
    line = "--preset fast --epochs 3 --seed 4 --validation --rise 0.3"
    changed = replace(PRESETS["fast"], epochs=3, seed=4, validation=True, rise=0.3)
    assert chosen(line) == changed
    assert chosen("") == PRESETS["reference"]
    assert chosen("--model best") == PRESETS["best"]
    assert chosen("--preset fast --model best") == replace(PRESETS["fast"], model="best")
    assert chosen("--model toy") == replace(PRESETS["reference"], model="toy")


def test_the_help_tells_every_presets_defaults(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    words = " ".join(capsys.readouterr().out.split())
    assert ", ".join(f"{name} {settings.epochs}" for name, settings in PRESETS.items()) in words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "resnet"], "unknown model 'resnet': choose one of reference, best, dilated, fast"),
        (["--dataset", "mnist"], "unknown dataset 'mnist': choose one of auto, cifar10, cifar100"),
        (["--device", "tpu", "--dataset", "digits"], "unknown device 'tpu'"),
        (["--precision", "int4", "--dataset", "digits"], "unknown precision 'int4'"),
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--rise", "1"], "--rise must be at most 0.99, got 1.0"),
        (
            "--preset fast --first-size 8 --batch-size 4 --dataset digits".split(),
            "a last batch of one image of 8 pixels cannot be normalised: change --batch-size",
        ),
        (["--epochs", "three"], "--epochs: invalid int value: 'three'"),
        (["--workers", "-2", "--dataset", "digits"], "workers must be in 0..256, got -2"),
        (
            ["--model", "dilated", "--first-size", "8", "--dataset", "digits"],
            "--first-size 8 is too small for the model dilated",
        ),
        (["--preset", "slow"], "unknown preset 'slow': choose one of reference, best, dilated, fast"),
        (["--data-dir", "nowhere"], "data folder nowhere does not exist"),
        (["--evaluate", "nowhere"], "is not the record of a run"),
        (
            ["--evaluate", "results/best", "--seed", "1", "--resume"],
            "--evaluate trains nothing: leave out --seed, --resume",
        ),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(tmp_path, refused, arguments, message):
    out = [] if "--evaluate" in arguments else ["--out", tmp_path / "run"]
    assert message in refused(train, *arguments, *out)
    assert not (tmp_path / "run").exists()


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
