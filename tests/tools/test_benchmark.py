"""The benchmark's sums and its manners; what it measures is never asserted, since clocks differ."""

import json
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from conftest import REPO
from small import small_data
from torch import nn

import dataset
import model
import utils
from dataset import loaders
from s9 import records
from s9.analysis.summary import count_multiply_adds
from s9.engine import hardware
from s9.errors import RunError, UserError
from s9.records import Epoch
from tools import benchmark, plain
from tools.benchmark import Bench, Row
from tools.claims import first_passing_epoch
from tools.plain import Plain

CPU = torch.device("cpu")
REPORT = {
    "device": "a CPU, 2 cores",
    "threads": 1,
    "started": "2026-11-24",
    "python": "3.11.7",
    "versions": {"torch": "2.15.0"},
    "rows": [
        Row("step", "images/s", 250.4, 1001.6, 4.0)._asdict(),
        Row("fast", "seconds", 2000.0, 1000.0, 2.0)._asdict(),
    ],
}


@pytest.fixture(scope="module")
def tiny() -> Bench:
    """A batch of images, and hardly a moment."""
    return Bench(small_data(), CPU, 1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "speed"], "--only: invalid choice: 'speed'"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--data-dir", "nowhere"], "data folder nowhere does not exist"),
    ],
)
def test_a_mistake_is_one_line(refused, arguments, message):
    assert message in refused(benchmark, *arguments)


def test_an_unwritable_report_is_named_before_anything_is_measured(refused, monkeypatch, tmp_path):
    monkeypatch.setattr(dataset, "load", lambda *_: pytest.fail("it began"))
    (tmp_path / "file").write_text("kept", encoding="utf-8")
    assert "cannot write to" in refused(benchmark, "--json", tmp_path / "file" / "bench.json")
    assert "is a folder: choose a file" in refused(benchmark, "--json", tmp_path)
    assert [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()] == ["kept"]


def test_a_measurement_that_fails_is_one_line(tiny, monkeypatch, capsys):
    monkeypatch.setattr(dataset, "load", lambda *_: tiny.data)
    failure = Mock(side_effect=RunError("the step was not captured"))
    monkeypatch.setitem(benchmark.MEASUREMENTS, "data", failure)
    with pytest.raises(SystemExit, match="1"):
        benchmark.main(["--only", "data", "--device", "cpu"])
    assert capsys.readouterr().err.endswith("\npython -m tools.benchmark: data: the step was not captured\n")


def test_rates_are_medians_of_rounds_in_turn(monkeypatch):
    """On a clock that only the work moves: the first way slows down once, the second is even."""
    now, calls = 0.0, []
    durations = {"a": iter([9, 1, 1, 4, 1, 1]), "b": iter([9, 2, 2, 2, 2, 2])}

    def way(name):
        def work():
            nonlocal now
            now += next(durations[name])
            calls.append(name)
            return 8

        return work

    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: now)
    assert benchmark.rates([way("a"), way("b")], 0.5) == [8.0, 4.0]
    assert "".join(calls) == "ab" * 6


def test_the_plain_way_is_plain(tiny):
    train, test = plain.plain_loaders(tiny.data, workers=0)
    images, labels = next(iter(train))
    assert train.batch_size == 128
    assert images.shape == (80, 3, 32, 32) and images.dtype == torch.float32 and images.is_contiguous()
    expected = next(iter(loaders(tiny.data._replace(mean=dataset.MEAN, std=dataset.STD), workers=0)[1]))
    torch.testing.assert_close(next(iter(test))[0], expected[0], rtol=0, atol=1e-5)
    trainer = plain.Plain(CPU)
    before = [parameter.clone() for parameter in trainer.network.parameters()]
    assert {layer.p for layer in trainer.network.modules() if isinstance(layer, nn.Dropout)} == {0.05}
    assert trainer.train([(images[:8], labels[:8])]) == 8 == trainer.test([(images[:8], labels[:8])])
    after = list(trainer.network.parameters())
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert {parameter.dtype for parameter in after} == {torch.float32}


def test_a_plain_training_is_recorded_and_continued(tiny, tmp_path):
    data, other = tiny.data, tiny.data._replace(train_labels=tiny.data.train_labels[::-1])
    whole, parts = tmp_path / "whole" / "plain.json", tmp_path / "parts" / "plain.json"
    for file, stops in ((whole, [3]), (parts, [1, 3])):
        file.parent.mkdir()
        for epochs in stops:
            plain.train_recorded(data, CPU, file, epochs)
    expected, record = (json.loads(file.read_text(encoding="utf-8")) for file in (whole, parts))
    for row in (*expected["epochs"], *record["epochs"]):
        assert row.pop("seconds") > 0
    assert [row["epoch"] for row in record["epochs"]] == [1, 2, 3]
    assert record == expected and record["precision"] == "float32" and record["data"] == data.facts()
    with pytest.raises(UserError, match="trained on other data"):
        plain.train_recorded(other, CPU, parts)
    (parts.parent / "checkpoint-plain.pt").write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match=r"(?s)is damaged .*: delete it and"):
        plain.train_recorded(data, CPU, parts)
    (parts.parent / "checkpoint-plain.pt").unlink()
    with pytest.raises(UserError, match="beside it: choose another file"):
        plain.train_recorded(data, CPU, parts)


def test_our_side_is_what_fit_does_on_the_same_images(tiny):
    trainer = benchmark.Ours(tiny)
    plain_batches, batches = benchmark.ready_batches(tiny, trainer.state.train_loader)
    for (images, labels), (ours, our_labels) in zip(plain_batches, batches, strict=True):
        assert torch.equal(images, ours) and torch.equal(labels, our_labels)
        assert images.is_contiguous() and ours.is_contiguous(memory_format=torch.channels_last)
    before = [parameter.clone() for parameter in trainer.state.network.parameters()]
    assert trainer.train(batches) == 80 == trainer.test(batches)
    after = trainer.state.network.parameters()
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert trainer.state.accelerator.mixed_precision == hardware.make_accelerator("cpu").mixed_precision


@pytest.mark.parametrize(("name", "count"), [("step", 4), ("test", 1), ("data", 1), ("epoch", 1)])
def test_each_measurement_gives_its_rows(tiny, monkeypatch, name, count):
    monkeypatch.setattr(benchmark, "ROUNDS", 1)
    rows = list(benchmark.MEASUREMENTS[name](tiny))
    assert len(rows) == count
    for row in rows:
        assert row.name == name and row.plain > 0 and row.ratio == row.ours / row.plain


def test_the_share_of_the_peak_counts_forward_and_backward(tiny, monkeypatch):
    monkeypatch.setattr(benchmark, "rates", lambda *_: [2.0, 3.0, 1e9, 4e9])
    rows = list(benchmark.measure_step(tiny))
    for name, row in (("reference", rows[1]), ("best", rows[3])):
        percent_an_image = 100 * 6 * count_multiply_adds(model.build(name)) / 1e9
        assert row[2:5] == pytest.approx((2 * percent_an_image, 3 / 4 * percent_an_image, 3 / 8))


@pytest.mark.parametrize(
    ("accuracies", "seconds", "words"),
    [([80, 86, 90], 30, "2 of --preset fast"), ([80, 81, 85], 60, "3 of"), ([80, 81, 82], np.inf, "never")],
)
def test_time_to_85_ends_with_the_first_epoch_that_reaches_it(tiny, monkeypatch, accuracies, seconds, words):
    history = [
        Epoch(number, 0.1, 1.0, 50.0, 1.0, float(accuracy), 10.0 * number)
        for number, accuracy in enumerate(accuracies, 1)
    ]
    monkeypatch.setattr(utils, "fit", lambda *_, **__: SimpleNamespace(history=history))
    monkeypatch.setattr(benchmark, "epoch_seconds", lambda trainer, *_: 15 if type(trainer) is Plain else 5)
    reference, fast = benchmark.measure_time_to_limit(tiny)
    plain = 15 * benchmark.PLAIN_EPOCHS
    assert reference[2:5] == (plain, 5 * benchmark.REFERENCE_EPOCHS, plain / 5 / benchmark.REFERENCE_EPOCHS)
    assert fast[2:5] == (plain, seconds, plain / seconds)
    assert words in fast.what


def test_epochs_to_85_are_those_of_the_records():
    record = json.loads((REPO / "results" / "plain.json").read_text(encoding="utf-8"))
    reached = [row["epoch"] for row in record["epochs"] if row["test_accuracy"] >= 85]
    history = records.read(REPO / "results" / "reference").history
    assert (reached[0], first_passing_epoch(history)) == (benchmark.PLAIN_EPOCHS, benchmark.REFERENCE_EPOCHS)


def test_an_epoch_is_ten_times_a_tenth_without_its_start(monkeypatch):
    now, durations = 0.0, iter([7, 7, 2, 1])

    def work(_):
        nonlocal now
        now += next(durations)

    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: now)
    assert benchmark.epoch_seconds(SimpleNamespace(train=work, test=work), [], []) == 30


def test_a_report_is_printed_as_a_table_and_a_damaged_one_named(tmp_path):
    assert benchmark.format_report(REPORT).splitlines() == [
        "a CPU, 2 cores, threads: 1, 2026-11-24, Python 3.11.7, torch 2.15.0",
        "",
        "| row | what | plain | ours | ratio |",
        "| --- | --- | ---: | ---: | ---: |",
        "| step | images/s | 250 | 1,002 | **4** |",
        "| fast | seconds | 2,000 | 1,000 | **2** |",
    ]
    path = tmp_path / "bench.json"
    for text in ("", "[]", "{}", json.dumps(REPORT | {"rows": [{"name": 1}]})):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"is not a report of the benchmark .*: write it anew with"):
            benchmark.read_report(path)


def test_a_run_writes_the_report_it_prints(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "ROUNDS", 1)
    monkeypatch.setattr(dataset, "load", lambda name, folder: tiny.data)
    path = tmp_path / "reports" / "bench.json"
    benchmark.main(["--only", "test", "--json", str(path)])
    assert capsys.readouterr().out == benchmark.read_report(path) + "\n"
    report = json.loads(path.read_text(encoding="utf-8"))
    assert [row["name"] for row in report["rows"]] == ["test"]
    assert report["data"]["train"] == len(tiny.data.train_images)
