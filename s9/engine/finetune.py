"""Fine-tuning: a run that starts from the weights of another one."""

import hashlib
from pathlib import Path

from torch import Tensor, nn

from s9 import records
from s9.data.sources import description


def read_start(folder: Path, network: nn.Module, classes: tuple[str, ...]) -> tuple[dict[str, Tensor], dict]:
    """The weights of the run in `folder` for `network`, and what the record of a run that starts so says.

    Without the classifier if the run has other classes. Raises UserError if the run is of another network.
    """
    run = records.read(folder)
    same = description(run.settings.dataset, run.facts.get("data", {}))[0] == classes
    weights = records.read_weights(folder, network, classifier=same)
    digest = hashlib.sha256((folder / records.WEIGHTS).read_bytes()).hexdigest()
    return weights, {"folder": str(folder), "sha256": digest, "new_classifier": not same}
