from dataclasses import replace

import pytest
from small import SETTINGS, fit_small

import live
from bars import NOTHING
from plots import NotebookFigure


@pytest.fixture
def shown(monkeypatch):
    """What is shown in the curves' place, one after another."""
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
    curves = live.Curves(SETTINGS)
    assert shown == [NOTHING]
    fit_small(tmp_path, after_epoch=curves)
    assert len(shown) == 1 + SETTINGS.epochs
    for epoch, figure in enumerate(shown[1:-1], 1):
        assert isinstance(figure, NotebookFigure)
        (line, *_) = figure.axes[0].lines
        assert line.get_xdata().tolist() == list(range(1, epoch + 1))
    assert shown[-1] == NOTHING


def test_they_name_the_data_and_the_model(shown):
    curves = live.Curves(replace(SETTINGS, model="fast"))
    curves([live.Epoch(1, 0.1, 2.0, 20.0, 1.9, 25.0, 3.0)])
    title = shown[-1].get_suptitle()
    assert "DIGITS" in title.upper()
    assert "fast, 25.00% test accuracy after epoch 1" in title
