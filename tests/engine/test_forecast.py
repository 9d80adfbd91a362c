import time

import pytest
import torch
from small import fit_small

from s9 import records
from s9.engine import progress
from s9.engine.progress import Forecast

CPU = torch.device("cpu")


class Clock:
    """A time that passes only where a test says so."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


def watched(clock, waits, steps, first=0, **options):
    """A forecast that is told of an epoch whose batches are waited for and computed that long, in seconds."""
    options = {"sizes": [32] * 60, "tested": 0, "device": CPU, **options}
    forecast = Forecast("paper", first=first, **options)
    epoch(forecast, clock, waits, steps, first)
    return forecast


def epoch(forecast, clock, waits, steps, first=0):
    forecast.start(len(waits))
    for wait, step in zip(waits[first:], steps[first:], strict=True):
        clock.now += wait
        forecast.batch_arrived()
        clock.now += step
        forecast.batch_done()


def test_it_is_judged_by_twenty_batches_without_the_warm_up(monkeypatch, capsys):
    # 60 epochs of 100 batches, 0.1 s waited and 0.2 s computed each: 1,800 s.
    watched(Clock(monkeypatch), [9] * 10 + [0.1] * 20 + [5] * 70, [7] * 10 + [0.2] * 20 + [5] * 70)
    assert capsys.readouterr().out == "on paper: about 30 minutes, judging by 20 batches\n"


def test_what_is_waited_for_does_not_grow_with_the_images_the_rest_does():
    run = Forecast("", [16, 16, 32], first=0, tested=0, device=CPU)
    assert run.seconds(100, waited=0.01, busy=0.02) == pytest.approx(100 * (3 * 0.01 + (1 + 1 + 4) * 0.02))


def test_a_test_counts_a_third_of_training_on_as_many_full_images():
    run = Forecast("", [16, 32], first=0, tested=0.2, device=CPU)
    tests = 2 * 100 * 0.2 * 4 * 0.03 / 3
    assert run.seconds(100, waited=0.0, busy=0.03) == pytest.approx(100 * (1 + 4) * 0.03 + tests)


def test_of_an_epoch_that_goes_on_only_the_rest_counts(monkeypatch, capsys):
    run = watched(Clock(monkeypatch), [0.0] * 100, [1.0] * 100, first=40, sizes=[32, 32])
    assert run.seconds(100, waited=0.0, busy=1.0) == pytest.approx(160)
    assert "about 3 minutes, judging by 20 batches" in capsys.readouterr().out


@pytest.mark.parametrize(("batches", "judged"), [(1, "a batch"), (6, "3 batches"), (18, "9 batches")])
def test_an_epoch_of_few_batches_is_judged_by_half_of_them(monkeypatch, capsys, batches, judged):
    warm_up = batches // 2
    steps = [50.0] * warm_up + [1.0] * (batches - warm_up)
    clock = Clock(monkeypatch)
    run = watched(clock, [0.0] * batches, steps, sizes=[32] * 600)
    line = capsys.readouterr().out
    assert f"about {progress.in_words(600 * batches)}, judging by {judged}" in line
    epoch(run, clock, [0.0] * batches, steps)
    assert capsys.readouterr().out == "", "said twice"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(60, "1 minute"), (89, "1 minute"), (91, "2 minutes"), (7100, "118 minutes"), (7200, "2.0 hours")],
)
def test_times_in_words(seconds, words):
    assert progress.in_words(seconds) == words


def test_a_run_says_what_it_is_computed_on_and_for_how_long_but_not_in_its_log(tmp_path, capsys):
    fit_small(tmp_path)
    printed = capsys.readouterr().out
    facts = records.collect_facts({}, CPU, "float32", 0)
    assert f"on {facts['device']}, float32, no workers: less than a minute, judging by 2 batches\n" in printed
    assert printed.count("judging by") == 1
    assert "judging" not in records.read(tmp_path).log
    for workers, words in ((1, "1 worker"), (3, "3 workers")):
        assert records.hardware_in_words(facts | {"workers": workers}).endswith(f", float32, {words}")
