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
    with progress.ProgressBar(shown) as bar:
        bar.start(len(loader), first)
        seen = 0
        for _ in loader:
            bar.batch_arrived()
            bar.batch_done()
            seen += 1
        return bar.finish(), seen


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


def test_the_forecast_is_told_of_each_batch_of_each_epoch():
    told = []

    class Forecast:
        def start(self, batches):
            told.append(batches)

        def batch_arrived(self):
            told.append("arrived")

        def batch_done(self):
            told.append("done")

    with progress.ProgressBar(forecast=Forecast()) as bar:
        for _ in range(2):
            bar.start(2)
            for text in ("Train: 1", None):
                bar.batch_arrived()
                bar.batch_done(text)
            assert bar.finish().startswith("Train: 1: 100%")
    assert told == [2, "arrived", "done", "arrived", "done"] * 2


def test_outside_of_notebooks_no_widget_is_drawn_or_imported():
    assert not progress.IN_NOTEBOOK
    assert "tqdm.notebook" not in sys.modules
