from unittest.mock import Mock

import pytest
from IPython.display import Image
from small import SETTINGS, fit_small

from s9.plots import curves, live


@pytest.fixture
def display(monkeypatch):
    monkeypatch.setattr(live, "display", Mock())
    return live.display


def updates(display):
    """What the curves display after the first, empty picture."""
    return [call.args[0] for call in display.return_value.update.call_args_list]


def test_curves_grow_with_each_epoch_and_are_gone_after_the_last(display, tmp_path):
    live_curves = live.Curves()
    assert display.call_args.args == (live.EMPTY,)
    _, history = fit_small(tmp_path, after_epoch=live_curves)
    *drawn, last = updates(display)
    assert last == live.EMPTY
    expected = [curves.plot_metrics(history[:end], "digits", SETTINGS.model).png for end in (1, 2)]
    assert [image.data for image in drawn] == expected


def test_the_last_curves_of_a_run_that_is_broken_off_stay(display, tmp_path):
    live_curves = live.Curves()
    fit_small(tmp_path, after_epoch=lambda run: live_curves(run._replace(history=run.history[:2])))
    assert isinstance(updates(display)[-1], Image)
