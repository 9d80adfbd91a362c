import pytest
from IPython.display import Image
from small import SETTINGS, fit_small

from s9.plots import curves, live


@pytest.fixture
def shown(monkeypatch):
    """What the curves display, in order."""
    states = []

    class Place:
        def update(self, content, raw=False):
            states.append(content)

    def display(content, raw, display_id):
        states.append(content)
        return Place()

    monkeypatch.setattr(live, "display", display)
    return states


def test_curves_grow_with_each_epoch_and_are_gone_after_the_last(shown, tmp_path):
    live_curves = live.Curves()
    assert shown == [live.EMPTY]
    _, history = fit_small(tmp_path, after_epoch=live_curves)
    drawn, last = shown[1:-1], shown[-1]
    assert last == live.EMPTY
    expected = [curves.plot_metrics(history[:end], "digits", SETTINGS.model).png for end in (1, 2)]
    assert [image.data for image in drawn] == expected


def test_the_last_curves_of_a_run_that_is_broken_off_stay(shown, tmp_path):
    live_curves = live.Curves()
    fit_small(tmp_path, after_epoch=lambda run: live_curves(run._replace(history=run.history[:2])))
    assert isinstance(shown[-1], Image)
