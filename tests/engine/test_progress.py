"""The bar, and the line that tells how long a run takes."""

import re
import sys
import time

import pytest
import torch
from small import fit_small

from s9 import records
from s9.engine import progress
from s9.engine.progress import Forecast, ProgressBar

CPU = torch.device("cpu")
LINE = r"Train: 100%\|█{10}\| 3/3 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+(it/s|s/it)\]"


def an_epoch(shown, first=0):
    """The bar's last line."""
    with ProgressBar(shown) as bar:
        bar.start(3, first)
        for _ in range(first, 3):
            bar.batch_done()
        return bar.finish()


def test_the_text_is_ten_characters_wide_on_any_terminal(monkeypatch, capsys):
    for columns, first in (("40", 0), ("300", 0), ("300", 2)):
        monkeypatch.setenv("COLUMNS", columns)
        line = an_epoch(True, first)
        assert re.fullmatch(LINE, line), line
        assert "\r" in capsys.readouterr().out
    assert an_epoch(False) == "" == capsys.readouterr().out
    assert not progress.IN_NOTEBOOK and "tqdm.notebook" not in sys.modules


@pytest.mark.parametrize(
    ("steps", "first", "line"),
    [
        # 60 epochs of 100 batches, 0.3 s each: 1,800 s.
        ([9] * 10 + [0.3] * 20 + [5] * 70, 0, "about 30 minutes, judging by 20 batches"),
        ([0.3] * 100, 40, "about 30 minutes, judging by 20 batches"),
        ([1.0], 0, "about 1 minute, judging by a batch"),
        ([50.0] * 9 + [1.0] * 9, 0, "about 18 minutes, judging by 9 batches"),
        ([0.1] * 9, 0, "less than a minute, judging by 5 batches"),
    ],
)
def test_a_run_is_judged_by_twenty_batches_without_the_warm_up(monkeypatch, capsys, steps, first, line):
    """In a short epoch by half of them. The batches take so many seconds each."""
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    forecast = Forecast("paper", [32] * 60, len(steps), first, 0, CPU)
    for step in steps[first:]:
        now += step
        forecast.batch_done()
    assert capsys.readouterr().out == f"on paper: {line}\n"
    for _ in range(100):
        forecast.batch_done()
    assert capsys.readouterr().out == "", "said twice"


def test_steps_grow_with_the_images_and_a_test_counts_a_third_of_training_on_full_ones():
    run = Forecast("", [16, 16, 32], 100, first=40, tested=0.2, device=CPU)
    training, tests = (100 * (1 + 1 + 4) - 40) * 0.03, 3 * 100 * 0.2 * 4 * 0.03 / 3
    assert run.seconds(0.03) == pytest.approx(training + tests)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 seconds"),
        (1.2, "1 second"),
        (59.4, "59 seconds"),
        (59.6, "1 minute"),
        (89, "1 minute"),
        (91, "2 minutes"),
        (7100, "118 minutes"),
        (7200, "2.0 hours"),
    ],
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
