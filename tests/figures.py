"""Made-up data for figures, and what to ask of a figure."""

from types import SimpleNamespace

import numpy as np

CLASSES = ["airplane", "automobile", "bird"]


def make_history(count, best=None):
    """Accuracy rises to 60 + count, except for a `best` epoch, which has 99."""
    return [
        SimpleNamespace(
            epoch=epoch,
            learning_rate=0.1 / epoch,
            train_loss=2 / epoch,
            train_accuracy=50.0 + epoch / 2,
            test_loss=1.5 / epoch,
            test_accuracy=99.0 if epoch == best else 60.0 + epoch,
            seconds=1.0,
        )
        for epoch in range(1, count + 1)
    ]


def make_images(count):
    """Image i is filled with the value i."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 32, 32, 3)).copy()


def make_predictions(confidences):
    """All true classes are airplane; image i is taken for a bird at confidences[i], rightly where it is 0."""
    birds = np.array(confidences, dtype=np.float32)
    probabilities = np.stack([1 - birds, np.zeros_like(birds), birds], axis=1)
    return make_images(len(birds)), np.zeros(len(birds), dtype=np.int64), probabilities


def drawn(figure):
    """The axes that hold an image, and the images' first values."""
    cells = [axes for axes in figure.axes if axes.images]
    return cells, [int(axes.images[0].get_array()[0, 0, 0]) for axes in cells]


def visible(figure):
    return [axes for axes in figure.axes if axes.axison]


def fits(figure):
    """Whether nothing that is drawn sticks out of the figure."""
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
