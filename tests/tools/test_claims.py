"""The tables of all runs, on made run folders in the layout of results/, and doctored copies."""

import shutil
from dataclasses import replace

import pytest
from conftest import REPO
from made_runs import FACTS, make_run

from model import build
from s9 import records
from s9.errors import UserError
from s9.settings import PRESETS, Settings
from tools import claims


def rows_of(table):
    """A Markdown table's rows as tuples of cells, without its header."""
    return [tuple(line[2:-2].split(" | ")) for line in table.splitlines()[2:]]


def results_of(folder):
    return dict(rows_of(claims.results_table(records.read(folder))))


@pytest.fixture
def seeds(tmp_path):
    """seeds(accuracy, ...): a network's folder, one run of two epochs for each last accuracy."""

    def make(*accuracies, devices=("a CPU",)):
        for seed, accuracy in enumerate(accuracies):
            folder = tmp_path / "best" / (f"seed-{seed}" if seed else "")
            facts = FACTS | {"device": devices[seed % len(devices)]}
            make_run(folder, accuracies=(95.0, accuracy), seed=seed, model="best", facts=facts)
        return tmp_path / "best"

    return make


# Reading


def test_seeds_are_read_in_their_order(seeds):
    folder = seeds(*[90.0 + number for number in range(5)])
    for number in (10, 11):
        make_run(folder / f"seed-{number}", accuracies=(95.0, 97.0), seed=number, model="best")
    runs = claims.read_seeds(folder)
    assert [run.settings.seed for run in runs] == [0, 1, 2, 3, 4, 10, 11]


def test_mean_sample_deviation_and_sampling_error(seeds):
    """Of 93.00, 93.40 and 93.20: deviations -0.2, 0.2 and 0 from 93.20, so the square root of 0.08 / 2."""
    runs = claims.read_seeds(seeds(93.0, 93.4, 93.2))
    assert claims.accuracy(runs) == (pytest.approx(93.2), pytest.approx(0.2))
    assert claims.accuracy(runs[:1]) == (93.0, None)
    assert claims.sampling_error(93.0, 10_000) == pytest.approx(0.255, abs=0.001)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({}, {"seed": 1, "batch_size": 64}, "must have the same settings but for the seed"),
        ({}, {"seed": 2}, "but for the seed, which the folder's name tells"),
        ({"seed": 1}, {"seed": 1}, "must have the same settings but for the seed"),
        ({}, {"dataset": "digits"}, "seed-1 is not a run on CIFAR-10's test set"),
        ({}, {"validation": True}, "seed-1 is not a run on CIFAR-10's test set"),
        ({}, {"epochs": 4}, r"seed-1 holds 3 of 4 epochs: --resume it"),
        ({}, {"network": build("dilated")}, "holds the weights of DilatedNet, not of S9Net"),
    ],
)
def test_seeds_that_do_not_belong_together_are_one_line(first, second, message, tmp_path):
    make_run(tmp_path, **first)
    make_run(tmp_path / "seed-1", **second)
    with pytest.raises(UserError, match=message) as error:
        claims.read_seeds(tmp_path)
    assert "\n" not in str(error.value)


def test_the_networks_that_have_a_folder_are_read_and_no_other(tmp_path):
    assert claims.read_networks(tmp_path) == {}
    for name in ("fast", "best", "notebook"):
        make_run(tmp_path / name, model="best" if name == "notebook" else name)
    assert list(claims.read_networks(tmp_path)) == ["best", "fast"]
    make_run(tmp_path / "dilated", model="best")
    with pytest.raises(UserError, match="dilated holds a run of best: rename the folder"):
        claims.read_networks(tmp_path)


def test_trials_need_no_weights_but_the_validation_set(tmp_path):
    assert claims.read_trials(tmp_path / "nowhere") == []
    for name, validation in (("b", True), ("a", True), ("c", False)):
        make_run(tmp_path / name, validation=validation)
        (tmp_path / name / records.WEIGHTS).unlink()
    with pytest.raises(UserError, match="c is not a run on CIFAR-10's validation set"):
        claims.read_trials(tmp_path)
    shutil.rmtree(tmp_path / "c")
    runs = claims.read_trials(tmp_path)
    assert [run.folder.name for run in runs] == ["a", "b"]
    header, _, first, _ = claims.runs_table(runs).splitlines()
    assert "| validation accuracy, last epoch | n |" in header
    assert first.startswith("| `results/trials/a` | 3 | **86.50%** | 1 |")
    assert first.endswith("--epochs 3 --seed 0 --validation` |")


# Tables


def test_a_row_of_the_table_of_networks(seeds, tmp_path):
    seeds(93.0, 93.4, 93.2)
    make_run(tmp_path / "fast", model="fast", accuracies=(86.5, 85.25))
    networks = claims.read_networks(tmp_path)
    best, fast = rows_of(claims.networks_table(networks))
    command = claims.command_line(networks["best"][0])
    assert best == (
        "`best`", "199,856", "55.6 million", "47", "2", "**93.20 ± 0.20%**", "3", "18 seconds",
        "a CPU, float32", "`abc`", f"`{command}`, `--seed 1`, `--seed 2`",
    )  # fmt: skip
    assert fast[1] == "494,368, over the limit"
    assert fast[5:7] == ("**85.25%**", "1")


def test_the_result_of_a_run(tmp_path):
    make_run(tmp_path, accuracies=(95.0, 84.0, 84.25))
    results = results_of(tmp_path)
    assert results["Test accuracy, last epoch"] == "**84.25%** of 10,000 images"
    assert results["Sampling error"] == "0.36 points"
    assert results["Epochs"] == "3 (85% first reached in epoch 1)"
    make_run(tmp_path, accuracies=(80.0, 84.99))
    assert results_of(tmp_path)["Epochs"] == "2 (85% not reached)"


def test_a_time_is_that_of_the_quickest_seed_on_each_machine(seeds):
    folder = seeds(90.0, 90.0, 90.0, devices=("a CPU", "a GPU", "a GPU"))
    for run, seconds in zip(claims.read_seeds(folder), (3600.0, 60.0, 180.0), strict=True):
        history = [row._replace(seconds=seconds) for row in run.history]
        (run.folder / records.HISTORY).write_text(records.format_history(history), encoding="utf-8")
    ((*_, time, device, _, _),) = rows_of(claims.networks_table({"best": claims.read_seeds(folder)}))
    assert (time, device) == ("2.0 hours; 2 minutes", "a CPU, float32; a GPU, float32")


def test_the_short_table_tells_the_time_on_one_machine(seeds):
    runs = claims.read_seeds(seeds(90.0, 90.0, 90.0))
    elsewhere = {"resumed": [{"epoch": 2, "commit": "def"}, {"epoch": 2, "device": "a GPU"}]}
    runs[0] = runs[0]._replace(facts=runs[0].facts | elsewhere)
    ((*_, n, time, device),) = rows_of(claims.networks_table({"best": runs}, short=True))
    assert (n, time, device) == ("3", "18 seconds", "a CPU, float32, and others")
    ((*_, time, device),) = rows_of(claims.networks_table({"best": runs[:1]}, short=True))
    assert (time, device) == ("18 seconds", "a CPU, float32 (from epoch 2 on: a GPU, float32)")


def test_a_run_that_was_continued_elsewhere_names_all_that_took_part(tmp_path):
    """Each part names what changed since the one before, as records.continued does."""
    resumed = [
        {"epoch": 61, "precision": "bfloat16", "commit": "def"},
        {"epoch": 90, "python": "3.13.1", "versions": {"torch": "2.10.0"}},
        {"epoch": 120, "device": "a GPU", "threads": 8, "precision": "float32", "commit": "abc"},
    ]
    make_run(tmp_path / "run", facts=FACTS | {"resumed": resumed})
    results = results_of(tmp_path / "run")
    assert results["Device"] == (
        "a CPU, float32 (from epoch 61 on: a CPU, bfloat16) (from epoch 120 on: a GPU, float32); "
        "the last test in float32"
    )
    assert results["Versions"] == (
        "Python 3.12.0, torch 2.9.0 (from epoch 90 on: Python 3.13.1, torch 2.10.0)"
    )
    assert results["Command"].endswith(
        "--seed 0` (`--resume` from epoch 61 on) (`--resume` from epoch 90 on) "
        "(`--resume` from epoch 120 on, `OMP_NUM_THREADS=8`)"
    )


def test_a_record_of_a_part_that_has_no_epoch_is_one_line(tmp_path):
    run = make_run(tmp_path, facts=FACTS | {"resumed": [{}]})
    with pytest.raises(UserError, match=r"settings\.json is not the record of a run"):
        claims.runs_table([run])


def test_the_command_repeats_all_settings_that_are_not_the_presets(tmp_path):
    run = make_run(tmp_path)
    settings = Settings(epochs=2, learning_rate=0.1, label_smoothing=0.0)
    assert claims.command_line(run._replace(settings=settings)) == (
        "python train.py --preset reference --dataset cifar10 --epochs 2 --seed 0 "
        "--learning-rate 0.1 --label-smoothing 0.0"
    )
    settings = replace(PRESETS["fast"], seed=3, validation=True)
    assert claims.command_line(run._replace(settings=settings)) == (
        f"python train.py --preset fast --dataset cifar10 --epochs {settings.epochs} --seed 3 --validation"
    )
    settings = Settings(model="gone", epochs=2, muon_rate=0.02)
    alone = run._replace(facts=run.facts | {"threads": 1}, settings=settings)
    assert claims.command_line(alone) == (
        "OMP_NUM_THREADS=1 python train.py --preset reference --dataset cifar10 --epochs 2 --seed 0 "
        "--model gone --muon-rate 0.02"
    )


# Public networks


def test_the_committed_public_networks():
    marks = claims.read_marks(REPO / "results" / "public.csv")
    assert len({mark["name"] for mark in marks}) == len(marks) == 7
    for mark in marks:
        assert ("< 200k" in mark["rules"]) == (int(mark["parameters"]) < 200_000)
        assert ("RF > 44" in mark["rules"]) == (int(mark["receptive_field"]) > 44)
        assert set(mark["rules"].split(", ")) <= set(claims.RULES)
    assert [mark["name"] for mark in marks if mark["rules"] == ", ".join(claims.RULES)] == [
        "TharunSivamani/ERA-V1", "unpublished S9 solution",
    ]  # fmt: skip
    row = rows_of(claims.marks_table(marks))[2]
    assert row[:-1] == ("woncoh1/era1a9", "163,744", "87.04%", "last epoch", "30", "35", "RF > 44")


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{header}\none,100,90.0,,51,blocks",
        "{header}\none,many,90.0,,51,blocks,,https://one",
        "{header}\none,100,90.0,,51,beautiful,,https://one",
    ],
    ids=["missing", "empty", "cut in a row", "a wrong number", "an unknown rule"],
)
def test_a_damaged_table_of_public_networks_is_one_line(text, tmp_path):
    header = "name,parameters,accuracy,epochs,receptive_field,rules,protocol,source"
    if text is not None:
        (tmp_path / "public.csv").write_text(text.format(header=header), encoding="utf-8")
    with pytest.raises(UserError, match=r"public\.csv is not the table of public networks \(.*: git restore"):
        claims.read_marks(tmp_path / "public.csv")
