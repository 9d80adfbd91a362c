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
    line, seen = an_epoch(True, first=2)  # An epoch that goes on.
    assert re.fullmatch(LINE, line), line
    assert seen == 1
    capsys.readouterr()
    assert an_epoch(False) == ("", 3)
    assert capsys.readouterr().out == ""
    assert not progress.IN_NOTEBOOK and "tqdm.notebook" not in sys.modules
