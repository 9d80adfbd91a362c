"""What decides a run: Settings, and the presets of this repo."""

from dataclasses import dataclass, fields

from s9.errors import UserError


@dataclass(frozen=True)
class Settings:
    """All that decides a run's result, next to the code, the data and the hardware.

    Raises UserError for values that make no sense.
    """

    model: str = "reference"
    """A name in model.NETWORKS."""
    dataset: str = "cifar10"
    """"cifar10" or "digits"."""
    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 0.2
    """The peak of the one-cycle schedule."""
    bias_rate: float = 1.0
    """Learning rate of the biases, of norms above all, in units of the kernels'."""
    muon_rate: float = 0.0
    """Peak rate of Muon, which then trains the kernels in front of a norm: the part of its length that one
    turns by in a step. 0: SGD trains all."""
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    augmentation: float = 0.5
    """Probability of ShiftScaleRotate and of CoarseDropout, each; HorizontalFlip keeps its half."""
    shift: float = 0.0625
    """Farthest that ShiftScaleRotate moves an image, in parts of its side."""
    first_size: int = 32
    """Side of the training images in the first epochs, in pixels; it grows to 32 as image_size() says."""
    seed: int = 0
    validation: bool = False
    """True: the last 5,000 training images are held out and take the place of the test set."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            fits = isinstance(value, (int, float) if kind is float else kind)
            if not fits or isinstance(value, bool) != (kind is bool):
                raise UserError(f"{_option(field.name)} {value!r} makes no sense: give {KINDS[kind]}")
        if self.dataset not in ("cifar10", "digits"):
            raise UserError(f"unknown dataset {self.dataset!r}: choose one of cifar10, digits")
        for name, low, high in (
            ("epochs", 1, 100_000),
            ("batch_size", 1, 50_000),
            ("learning_rate", 0, 100),
            ("bias_rate", 0, 1_000),
            ("muon_rate", 0, 1),
            ("weight_decay", 0, 1),
            ("label_smoothing", 0, 1),
            ("augmentation", 0, 1),
            ("shift", 0, 1),
            ("first_size", 8, 32),
            ("seed", 0, 2**63 - 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high or (name == "learning_rate" and value == 0):
                raise UserError(
                    f"{_option(name)} {value} makes no sense: give a value from {low} to {high:,}"
                )


KINDS = {str: "a name", int: "a whole number", float: "a number", bool: "true or false"}


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


PRESETS = {
    "reference": Settings(),
    "best": Settings(
        model="best",
        epochs=72,
        batch_size=256,
        learning_rate=0.4,
        bias_rate=4,
        muon_rate=0.02,
        weight_decay=5e-4,
        augmentation=0.5,
        shift=0.125,
        first_size=20,
    ),
    "dilated": Settings(
        model="dilated",
        epochs=40,
        batch_size=256,
        learning_rate=0.4,
        bias_rate=4,
        muon_rate=0.02,
        weight_decay=5e-4,
        augmentation=0.3,
        first_size=20,
    ),
    "fast": Settings(
        model="fast",
        epochs=12,
        batch_size=256,
        learning_rate=0.4,
        bias_rate=16,
        weight_decay=2e-3,
        augmentation=0.1,
        first_size=16,
    ),
}
"""Network and recipe together, by name."""


def preset(name: str) -> Settings:
    """The settings of that name. Raises UserError if there is none."""
    if name not in tuple(PRESETS):
        raise UserError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def image_size(settings: Settings, epoch: int) -> int:
    """Side of the training images in an epoch (from 1): first_size, then 4 pixels more at a time, up to 32.

    Each size lasts for an equal part of the run, to whole epochs. A convolutional network learns its first
    features from small images as well, in a fraction of the time (Howard, DAWNBench 2018,
    https://www.fast.ai/posts/2018-04-30-dawnbench-fastai.html).

    Raises UserError for an epoch that the run does not have.
    """
    if epoch not in range(1, settings.epochs + 1):
        raise UserError(f"epoch {epoch} makes no sense: the run's are 1 to {settings.epochs}")
    sizes = [*range(settings.first_size, 32, 4), 32]
    return sizes[(epoch - 1) * len(sizes) // settings.epochs]


def whole_number(text: str | int, name: str) -> int:
    """A setting that came as text, from the environment say. Raises UserError if it is no whole number."""
    try:
        return int(str(text))  # Not int(text), which would cut 2.5 to 2.
    except ValueError as error:
        raise UserError(f"{name}={text} is not a whole number: give one, such as 30") from error
