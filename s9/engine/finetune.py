"""Fine-tuning: a run that starts from the weights of another one."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from s9 import records
from s9.data.sources import description


class Start(NamedTuple):
    """First weights of a network, and what the record says of them."""

    weights: dict[str, Tensor]
    facts: dict


def read_start(folder: Path, network: nn.Module, classes: tuple[str, ...]) -> Start:
    """The weights of the run in `folder` for `network`, without the classifier if the run has other classes.

    Raises UserError if the run is of another network.
    """
    run = records.read(folder)
    same = description(run.settings.dataset, run.facts.get("data", {}))[0] == classes
    weights = records.read_weights(folder, network, classifier=same)
    digest = hashlib.sha256((folder / records.WEIGHTS).read_bytes()).hexdigest()
    return Start(weights, {"folder": str(folder), "sha256": digest, "new_classifier": not same})
