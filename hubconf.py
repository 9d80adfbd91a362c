"""The networks for any program, through torch.hub: torch.hub.load("YOUR_NAME/S9", "best", pretrained=True)"""

# Modules alone: torch.hub.list takes any public name that can be called for something to load.
import copyreg
import functools
import hashlib
import importlib
import pathlib
import sys
import types
import typing

import safetensors.torch
import torch
from torch import nn

dependencies = ["numpy", "PIL", "safetensors", "torch"]

REPO = pathlib.Path(__file__).absolute().parent


def reference(pretrained: bool = False, classes: int = 10) -> nn.Module:
    """The reference network, 174,352 parameters: logits (batch, classes) of images (batch, 3, 32, 32).

    images: normalised, as `transform` does it. pretrained: with the weights of the run in results/, in
    evaluation mode; if classes is not 10, the classifier is new and has to be trained.

    Raises FileNotFoundError if results/ has no weights, ValueError for fewer than one class.
    """
    return _network("reference", pretrained, classes)


def best(pretrained: bool = False, classes: int = 10) -> nn.Module:
    """The most accurate network below 200,000 parameters; arguments as for `reference`."""
    return _network("best", pretrained, classes)


def dilated(pretrained: bool = False, classes: int = 10) -> nn.Module:
    """The network that shrinks its maps by dilation instead of stride; arguments as for `reference`."""
    return _network("dilated", pretrained, classes)


def fast(pretrained: bool = False, classes: int = 10) -> nn.Module:
    """The network with the shortest training, 494,368 parameters; arguments as for `reference`."""
    return _network("fast", pretrained, classes)


def transform() -> typing.Any:
    """A function from a Pillow image of any size to its middle square, float32 (3, 32, 32), normalised."""
    return _import("s9.data.photos").PhotoTransform()


def classes() -> tuple[str, ...]:
    """The ten classes of CIFAR-10, in the order of the logits."""
    return _import("s9.data.cifar10").CLASSES


def _network(name: str, pretrained: bool, classes: int) -> nn.Module:
    network = _import("model").build(name, classes)
    if pretrained:
        weights = safetensors.torch.load_file(REPO / "results" / name / "weights.safetensors")
        if classes != 10:
            weights |= {key: value for key, value in network.state_dict().items() if "classifier" in key}
        network.load_state_dict(weights)
        network.eval()
    return network


def _import(name: str) -> types.ModuleType:
    """A module of this repository, inside a package whose name no other program or checkout uses.

    So the caller's own model.py or s9 is neither imported instead nor hidden. Instances of its classes can be
    unpickled in any process that finds this folder.
    """
    version = str(REPO).encode() + (REPO / "model.py").read_bytes()
    package = f"s9_hub_{hashlib.sha256(version).hexdigest()[:16]}"
    if package not in sys.modules:
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__path__ = [str(REPO)]
    module = importlib.import_module(f"{package}.{name}")
    for kind in vars(module).values():
        if isinstance(kind, type) and kind.__module__ == module.__name__:
            copyreg.pickle(kind, _reduce)
    return module


def _reduce(instance: typing.Any) -> tuple:
    """As object.__reduce_ex__, but another process finds the class through torch.hub."""
    _, _, module = type(instance).__module__.partition(".")
    new = functools.partial(torch.hub.load, str(REPO), "_new", source="local")
    return new, (module, type(instance).__name__), vars(instance)


def _new(module: str, kind: str) -> typing.Any:
    """An instance without attributes, which unpickling then sets."""
    return object.__new__(getattr(_import(module), kind))
