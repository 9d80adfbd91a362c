"""The tables of all runs, on made run folders in the layout of results/."""

import json
from dataclasses import replace

import pytest
from conftest import REPO
from made_runs import FACTS, make_run

from model import NETWORKS, build
from s9 import records
from s9.errors import UserError
from s9.settings import PRESETS, Settings
from tools import claims


def rows_of(table):
    """A Markdown table's rows as tuples of cells, without its header."""
    return [tuple(line[2:-2].split(" | ")) for line in table.splitlines()[2:]]


def results_of(folder):
    return dict(rows_of(claims.results_table(claims.read_seeds(folder), folder.parent)))


@pytest.fixture
def seeds(tmp_path):
    """seeds(accuracy, ...): a network's folder, one run of two epochs for each last accuracy."""

    def make(*accuracies, **settings):
        for seed, accuracy in enumerate(accuracies):
            folder = tmp_path / "best" / (f"seed-{seed}" if seed else "")
            make_run(folder, accuracies=(95.0, accuracy), seed=seed, model="best", **settings)
        return tmp_path / "best"

    return make


def change_record(folder, change):
    path = folder / records.SETTINGS
    record = json.loads(path.read_text(encoding="utf-8"))
    change(record)
    path.write_text(json.dumps(record), encoding="utf-8")


# Seeds


def test_seeds_are_read_in_their_order(seeds):
    folder = seeds(*[90.0 + number for number in range(5)])
    for number in (10, 11):
        make_run(folder / f"seed-{number}", accuracies=(95.0, 97.0), seed=number, model="best")
    runs = claims.read_seeds(folder)
    assert [run.settings.seed for run in runs] == [0, 1, 2, 3, 4, 10, 11]
    assert [run.history[-1].test_accuracy for run in runs] == [90.0, 91.0, 92.0, 93.0, 94.0, 97.0, 97.0]


def test_mean_and_sample_deviation_are_of_the_last_epochs(seeds):
    """Of 93.00, 93.40 and 93.20: deviations -0.2, 0.2 and 0 from 93.20, so the square root of 0.08 / 2."""
    runs = claims.read_seeds(seeds(93.0, 93.4, 93.2))
    assert claims.accuracy(runs) == (pytest.approx(93.2), pytest.approx(0.2))
    assert claims.accuracy(runs[:1]) == (93.0, None)


def test_seeds_of_other_settings_are_one_line(seeds):
    folder = seeds(93.0, 93.1)
    change_record(folder / "seed-1", lambda record: record["settings"].update(batch_size=64, epochs=2))
    with pytest.raises(UserError, match=r"seed-1 has other .*\(batch_size 128 there, 64 here\)") as error:
        claims.read_seeds(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("first", "second"), [(0, 2), (1, 1)])
def test_every_seed_stands_once_in_the_folder_of_its_number(first, second, tmp_path):
    make_run(tmp_path, seed=first)
    make_run(tmp_path / "seed-1", seed=second)
    with pytest.raises(UserError, match=f"seed-1 holds seed {second}, .* seed {first}: give each seed once"):
        claims.read_seeds(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"dataset": "digits"}, "is no run on CIFAR-10's test set"),
        ({"validation": True}, "is no run on CIFAR-10's test set"),
        ({"epochs": 4}, r"holds 3 of 4 epochs: train on with --resume"),
        ({"network": build("dilated")}, "holds the weights of DilatedNet, not of S9Net"),
        ({"facts": {"data": FACTS["data"]}}, "does not say what a run's record must .*'threads'"),
        ({"facts": FACTS | {"versions": "new"}}, "does not say what a run's record must .*AttributeError"),
        ({"facts": FACTS | {"data": {"test": "many"}}}, "does not say what a run's record must .*ValueError"),
        ({"facts": FACTS | {"resumed": [{}]}}, "does not say what a run's record must .*'epoch'"),
        ({"facts": FACTS | {"resumed": 2}}, "does not say what a run's record must .*TypeError"),
    ],
)
def test_nothing_is_claimed_of_a_run_that_is_not_whole(damage, message, tmp_path):
    make_run(tmp_path)
    make_run(tmp_path / "seed-1", **{"seed": 1} | damage)
    with pytest.raises(UserError, match=message) as error:
        claims.read_seeds(tmp_path)
    assert "\n" not in str(error.value)
    assert "seed-1" in str(error.value)


# Networks


def test_the_networks_that_have_a_folder_are_listed_and_no_other(tmp_path):
    assert claims.read_networks(tmp_path) == {}
    for name in ("fast", "best", "notebook"):
        make_run(tmp_path / name, model="best" if name == "notebook" else name)
    assert list(claims.read_networks(tmp_path)) == ["best", "fast"]
    for name in NETWORKS:
        make_run(tmp_path / name, model=name)
    assert list(claims.read_networks(tmp_path)) == list(NETWORKS)


def test_a_folder_that_holds_another_network_is_named(tmp_path):
    make_run(tmp_path / "best", model="dilated")
    with pytest.raises(UserError, match="best holds a run of dilated: name the folder after it"):
        claims.read_networks(tmp_path)


def test_a_row_of_the_table_of_networks(seeds, tmp_path):
    seeds(93.0, 93.4, 93.2)
    make_run(tmp_path / "fast", model="fast", accuracies=(86.5, 85.25))
    best, fast = rows_of(claims.networks_table(claims.read_networks(tmp_path)))
    command = (
        "python train.py --preset best --dataset cifar10 --epochs 2 --seed 0 --batch-size 128 "
        "--learning-rate 0.2 --bias-rate 1.0 --muon-rate 0.0 --shift 0.0625 --first-size 32"
    )
    assert best == (
        "[best](results/best)",
        "199,856",
        "55.6 million",
        "47",
        "**93.20 ± 0.20%**, 3 seeds",
        "2",
        "0 minutes",
        "a CPU, float32",
        f"`{command}`, `--seed 1`, `--seed 2`",
    )
    assert fast[1] == "494,368, too many to hand in"
    assert fast[4] == "**85.25%**"


def test_the_claim_of_three_seeds(seeds):
    results = results_of(seeds(93.0, 84.0, 93.2))
    assert results["Test accuracy after the last epoch"] == (
        "**90.07 ± 5.25%** of 10,000 images, mean and standard deviation of 3 seeds: 93.00, 84.00, 93.20"
    )
    assert results["Seeds"] == "0, 1, 2"
    assert results["Epochs"] == "2 (85% first reached in epochs 1, 1, 1)"
    assert results["Records"] == "[`best`](best)"


def test_the_claim_of_one_run_shows_no_spread_and_no_best_epoch(seeds):
    results = results_of(seeds(84.25))
    assert results["Test accuracy after the last epoch"] == "**84.25%** of 10,000 images"
    assert results["Seed"] == "0"
    assert "95" not in " ".join(results.values())


def test_a_target_that_was_never_reached_is_said(tmp_path):
    make_run(tmp_path / "run", accuracies=(80.0, 84.99))
    assert results_of(tmp_path / "run")["Epochs"] == "2 (85% not reached)"


def test_times_are_means_over_the_seeds(tmp_path):
    for seed, seconds in ((0, 3600.0), (1, 6000.0)):
        folder = tmp_path / "run" / (f"seed-{seed}" if seed else "")
        run = make_run(folder, accuracies=(90.0, 90.0), seed=seed)
        records.write(
            run._replace(history=[row._replace(seconds=seconds) for row in run.history]), build("reference")
        )
    runs = claims.read_seeds(tmp_path / "run")
    assert results_of(tmp_path / "run")["Time"] == "2.7 hours a seed, tests included"
    assert dict(rows_of(claims.results_table(runs[:1], tmp_path)))["Time"] == "2.0 hours, tests included"


def test_single_runs_stand_side_by_side(tmp_path):
    runs = [
        make_run(tmp_path / "results" / name, accuracies=accuracies)
        for name, accuracies in (("notebook", (95.0, 88.2)), ("short", (70.0, 80.0, 90.3)))
    ]
    command = "python train.py --preset reference --dataset cifar10 --epochs {} --seed 0"
    assert rows_of(claims.runs_table(runs, tmp_path)) == [
        (
            f"[`results/{name}`](results/{name})",
            f"{epochs}",
            accuracy,
            "0 minutes",
            "a CPU, float32",
            f"`{command.format(epochs)}`",
        )
        for name, epochs, accuracy in (("notebook", 2, "88.20%"), ("short", 3, "90.30%"))
    ]


def test_times_are_means_over_the_seeds_of_one_machine(tmp_path):
    for seed, (device, seconds) in enumerate((("a CPU", 3600.0), ("a GPU", 60.0), ("a GPU", 180.0))):
        folder = tmp_path / "run" / (f"seed-{seed}" if seed else "")
        run = make_run(folder, accuracies=(90.0, 90.0), seed=seed, facts=FACTS | {"device": device})
        records.write(
            run._replace(history=[row._replace(seconds=seconds) for row in run.history]), build("reference")
        )
    time = results_of(tmp_path / "run")["Time"]
    assert time == "seed 0: 2.0 hours; seed 1, 2: 4 minutes a seed, tests included"


# Machines


def test_a_run_that_was_continued_elsewhere_names_all_that_took_part(tmp_path):
    """Each part names what changed since the one before, as records.continued does."""
    versions = {"torch": "2.9.0", "numpy": "2.4.6"}
    resumed = [
        {"epoch": 61, "precision": "bfloat16", "commit": "def"},
        {"epoch": 90, "python": "3.13.1", "versions": versions | {"torch": "2.10.0"}},
        {"epoch": 120, "device": "a GPU", "threads": 8, "precision": "float32", "commit": "abc"},
    ]
    make_run(tmp_path / "run", facts=FACTS | {"versions": versions, "resumed": resumed})
    results = results_of(tmp_path / "run")
    assert results["Device"] == (
        "a CPU, float32 (from epoch 61 on: a CPU, bfloat16; from epoch 120 on: a GPU, float32); "
        "the last test in float32"
    )
    assert results["Versions"] == (
        "Python 3.12.0, torch 2.9.0, numpy 2.4.6 (from epoch 90 on: Python 3.13.1, torch 2.10.0)"
    )
    assert results["Code"] == "commit `abc` (from epoch 61 on: commit `def`; from epoch 120 on: commit `abc`)"
    assert results["Command"].endswith(
        "--seed 0` (`--resume` from epoch 61 on; from epoch 90 on; from epoch 120 on, `OMP_NUM_THREADS=8`)"
    )


def test_seeds_from_other_machines_are_told_apart(tmp_path):
    for seed, device in enumerate(("a CPU", "a GPU", "a CPU")):
        folder = tmp_path / "run" / (f"seed-{seed}" if seed else "")
        make_run(folder, seed=seed, facts=FACTS | {"device": device, "threads": 1 if seed == 2 else 2})
    results = results_of(tmp_path / "run")
    assert results["Device"] == "seed 0, 2: a CPU, float32; seed 1: a GPU, float32; the last test in float32"
    assert results["Versions"] == "Python 3.12.0, torch 2.9.0"
    assert results["Command"] == (
        "`python train.py --preset reference --dataset cifar10 --epochs 3 --seed 0`, `--seed 1`, "
        "`OMP_NUM_THREADS=1 python train.py --preset reference --dataset cifar10 --epochs 3 --seed 2`"
    )


def test_the_command_repeats_all_settings_that_are_not_the_default(tmp_path):
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
    alone = run._replace(facts=run.facts | {"threads": 1})
    assert claims.command_line(alone) == f"OMP_NUM_THREADS=1 {claims.command_line(run)}"


# Tables that are kept as files


def test_the_table_of_trials_shows_every_row(tmp_path):
    path = tmp_path / "validation.csv"
    path.write_text(
        "tried,thousand_parameters,million_multiply_adds,epochs,validation_accuracy,seconds\n"
        '"one, and two",169,20.4,8,84.5,249\nthree,195,,12,85.10,395\n',
        encoding="utf-8",
    )
    assert rows_of(claims.validation_table(claims.read_trials(path))) == [
        ("one, and two", "169k", "20.4 million", "8", "84.50%", "249 s"),
        ("three", "195k", "", "12", "85.10%", "395 s"),
    ]


def test_the_committed_tables_are_plausible():
    trials = claims.read_trials(REPO / "results" / "validation.csv")
    assert len(trials) == 24
    assert all(trial.thousand_parameters <= 200 and 80 < trial.validation_accuracy < 91 for trial in trials)
    marks = claims.read_marks(REPO / "results" / "public.csv")
    assert len({mark.name for mark in marks}) == len(marks) == 7
    assert all(mark.parameters < 200_000 and 85 < mark.accuracy < 95 and mark.source for mark in marks)
    assert [mark.name for mark in marks if mark.epochs is None] == ["DenseNet-BC-40 (k=12)"]


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "a,b\n1,2\n",
        "name,parameters,accuracy,epochs,source\nx,1,2\n",
        "name,parameters,accuracy,epochs,source\nx,,2,3,y\n",
        "name,parameters,accuracy,epochs,source\nx,many,2,3,y\n",
        "name,parameters,accuracy,epochs,source\nx,1,2,3,y,z\n",
    ],
)
def test_a_file_that_is_no_such_table_is_one_line(text, tmp_path):
    path = tmp_path / "public.csv"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"public.csv is no table of name, parameters, accuracy"):
        claims.read_marks(path)
