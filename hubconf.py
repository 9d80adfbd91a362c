"""The networks for any program, through torch.hub: torch.hub.load("YOUR_NAME/S9", "best", pretrained=True)

reference, best, dilated, fast, gated   the networks of model.py; the weights come with the repository
transform                        makes what they take of a Pillow image
classes                          the names of what they tell apart
"""

# Modules alone: torch.hub.list takes any public name that can be called for something to load.
import collections.abc
import contextlib
import pathlib
import sys

import PIL.Image
import torch
from torch import nn

dependencies = [
    "albumentations",
    "cv2",
    "numpy",
    "PIL",
    "pooch",
    "pyarrow",
    "requests",
    "safetensors",
    "torch",
    "torchsummary",
    "torchvision",
    "tqdm",
]

REPO = pathlib.Path(__file__).absolute().parent


@contextlib.contextmanager
def _own_modules() -> collections.abc.Iterator[None]:
    """Imports inside find this repository's modules, and leave no trace.

    Their names are plain: the caller's program may well have a model.py or a dataset.py too, which must
    neither be taken for ours nor, if it is imported later, be hidden by it.
    """
    names = {path.stem for path in REPO.glob("*.py")} | {"s9"}

    def loaded() -> set[str]:
        return {name for name in sys.modules if name.partition(".")[0] in names}

    theirs = {name: sys.modules.pop(name) for name in loaded()}
    sys.path.insert(0, str(REPO))
    try:
        yield
    finally:
        sys.path.remove(str(REPO))
        for name in loaded():
            del sys.modules[name]
        sys.modules.update(theirs)


with _own_modules():
    import model
    from s9 import errors, records


def reference(pretrained: bool = False) -> nn.Module:
    """The reference network, 174,352 parameters: logits (batch, 10) of normalised images (batch, 3, 32, 32).

    pretrained: with the weights of its run in results/, and in evaluation mode. Raises UserError if that run
    is not there.
    """
    return _network("reference", pretrained)


def best(pretrained: bool = False) -> nn.Module:
    """The most accurate network below 200,000 parameters; the rest as for `reference`."""
    return _network("best", pretrained)


def dilated(pretrained: bool = False) -> nn.Module:
    """The network that dilates where others stride; the rest as for `reference`."""
    return _network("dilated", pretrained)


def fast(pretrained: bool = False) -> nn.Module:
    """The network that is trained in the least time, 494,368 parameters; the rest as for `reference`."""
    return _network("fast", pretrained)


def gated(pretrained: bool = False) -> nn.Module:
    """A candidate for `best`, with gated units; the rest as for `reference`."""
    return _network("gated", pretrained)


def _network(name: str, pretrained: bool) -> nn.Module:
    network = model.build(name)
    if pretrained:
        folder = REPO / "results" / name
        if not (folder / records.WEIGHTS).exists():
            raise errors.UserError(
                f"results/{name} holds no weights yet: train them (python train.py --preset {name})"
            )
        records.load_weights(folder, network)
        network.eval()
    return network


def transform() -> collections.abc.Callable[[PIL.Image.Image], torch.Tensor]:
    """What a photo needs: a function from a Pillow image of any size and mode to float32 (3, 32, 32).

    It takes the middle square, resizes it and normalises it with the mean and deviation of CIFAR-10.
    """
    with _own_modules():
        from dataset import test_transform
        from s9.data.photos import fit
    normalise = test_transform()
    return lambda image: normalise(image=fit(image))["image"]


def classes() -> tuple[str, ...]:
    """The ten classes of CIFAR-10, in the order of the logits."""
    with _own_modules():
        from s9.data.cifar10 import CLASSES
    return CLASSES
