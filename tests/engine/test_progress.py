import re
import sys

from small import small_data

from dataset import loaders
from s9.engine import progress

LINE = r"Train: 100%\|█{10}\| 3/3 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+(it/s|s/it)\]"


def an_epoch(shown, first=0):
    """The bar's last line, and the batches that went by."""
    loader, _ = loaders(small_data(), 32, workers=0)
    loader.set_epoch(1, first=first)
    with progress.Bars(shown) as of_run:
        bar = of_run.open(loader, first)
        seen = len(list(bar))
        return of_run.close(bar), seen


def test_the_text_is_ten_characters_wide_on_any_terminal(monkeypatch, capsys):
    for columns in ("40", "300"):
        monkeypatch.setenv("COLUMNS", columns)
        line, seen = an_epoch(True)
        assert re.fullmatch(LINE, line), line
        assert seen == 3
    assert "\r" in capsys.readouterr().out


def test_an_epoch_that_goes_on_counts_from_where_it_was(capsys):
    line, seen = an_epoch(True, first=2)
    assert re.fullmatch(LINE, line), line
    assert seen == 1


def test_what_is_not_shown_prints_nothing(capsys):
    assert an_epoch(False) == ("", 3)
    assert capsys.readouterr().out == ""


def test_each_epochs_batches_are_watched(capsys):
    passed = []

    def watch(loader):
        for batch in loader:
            passed.append(batch)
            yield batch

    loader, _ = loaders(small_data(), 32, workers=0)
    with progress.Bars(watch=watch) as of_run:
        for _ in range(2):
            of_run.close(list_through(of_run.open(loader)))
    assert len(passed) == 6


def list_through(bar):
    for _ in bar:
        pass
    return bar


def test_outside_of_notebooks_no_widget_is_drawn_or_imported():
    assert not progress.IN_NOTEBOOK
    assert "tqdm.notebook" not in sys.modules
