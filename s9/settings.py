"""The settings of a run, the presets, and the schedule of image sizes.

The one-cycle schedule of the learning rate is in engine/optimizer.py; its shape is `Settings.rise`.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any

from s9.errors import UserError, option


def _setting(
    default: Any, help: str, low: float | None = None, high: float | None = None, added: bool = False
) -> Any:
    """A field of Settings.

    help: text of its option. low, high: range of its values, both ends included.
    added: records of earlier runs lack it; its default is what those runs did.
    """
    return field(default=default, metadata={"help": help, "low": low, "high": high, "added": added})


@dataclass(frozen=True)
class Settings:
    """Everything that determines a run's result, besides the code, the data and the hardware.

    Each field is an option of train.py and is recorded in settings.json.

    Raises UserError for a value of another type or outside of its range.
    """

    model: str = _setting("reference", "network, a name in model.NETWORKS")
    dataset: str = _setting("cifar10", "data set, see s9.data.sources.load")
    epochs: int = _setting(30, "passes over the training set; the schedules span them all", 1, 100_000)
    batch_size: int = _setting(128, "images per step", 1, 50_000)
    learning_rate: float = _setting(0.2, "peak learning rate of SGD", 1e-6, 100)
    bias_rate: float = _setting(1.0, "learning rate of the biases, relative to --learning-rate", 0, 1_000)
    muon_rate: float = _setting(0.0, "peak rate of Muon for the dense kernels; 0: SGD trains them", 0, 1)
    """Length of a step relative to the kernel's."""
    rise: float = _setting(0.2, "part of the steps in which the learning rates rise", 0, 0.99, added=True)
    weight_decay: float = _setting(5e-4, "weight decay of the kernels that SGD trains", 0, 1)
    label_smoothing: float = _setting(0.1, "label smoothing of the training loss", 0, 1)
    augmentation: float = _setting(0.5, "probability of ShiftScaleRotate and of CoarseDropout, each", 0, 1)
    shift: float = _setting(0.0625, "largest shift of ShiftScaleRotate, relative to the image's side", 0, 1)
    first_size: int = _setting(32, "side of the first epochs' training images, in pixels", 8, 32)
    """It grows to 32 pixels in steps of 4: see image_size()."""
    seed: int = _setting(0, "seed of the initial weights, the order and the augmentations", 0, 2**63 - 1)
    validation: bool = _setting(False, "hold out the last 5,000 training images and test on them")

    def __post_init__(self) -> None:
        for setting in fields(self):
            value, kind = getattr(self, setting.name), type(setting.default)
            low, high = setting.metadata["low"], setting.metadata["high"]
            fits = isinstance(value, (int, float) if kind is float else kind)
            if not fits or isinstance(value, bool) != (kind is bool):
                raise UserError(f"{option(setting.name)} must be {KINDS[kind]}, got {value!r}")
            if low is not None and not low <= value <= high:
                limit = f"at most {high:,}" if value > high else f"at least {low}"
                raise UserError(f"{option(setting.name)} must be {limit}, got {value}")


KINDS = {str: "a name", int: "a whole number", float: "a number", bool: "true or false"}

MUON = Settings(batch_size=256, learning_rate=0.4, bias_rate=4, muon_rate=0.02, first_size=20)
PRESETS = {
    "reference": Settings(),
    "best": replace(MUON, model="best", epochs=240, shift=0.125),
    "dilated": replace(MUON, model="dilated", epochs=48, shift=0.125),
    "fast": replace(
        MUON,
        model="fast",
        epochs=8,
        bias_rate=16,
        muon_rate=0.07,
        weight_decay=2e-3,
        augmentation=0.1,
        first_size=16,
    ),
}
"""Network and recipe together, by name."""


def preset(name: str) -> Settings:
    """The settings of that name. Raises UserError if there is none."""
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def from_record(recorded: dict[str, Any]) -> Settings:
    """The settings that a record or a checkpoint holds; those added since the run have their defaults.

    Raises UserError if another one is missing or unknown, or a value is not allowed.
    """
    # A former setting, of how long the images have 32 pixels: 0 in every record means what image_size() does.
    recorded = {key: value for key, value in recorded.items() if (key, value) != ("full_size", 0)}
    needed = {setting.name for setting in fields(Settings) if not setting.metadata["added"]}
    if missing := sorted(needed - recorded.keys()):
        raise UserError(f"setting {missing[0]!r} is missing")
    if unknown := sorted(recorded.keys() - {setting.name for setting in fields(Settings)}):
        raise UserError(f"setting {unknown[0]!r} is unknown")
    return Settings(**recorded)


def image_size(settings: Settings, epoch: int) -> int:
    """Side of the training images in an epoch (from 1): first_size, then 4 pixels more at a time, up to 32.

    The sizes share the run equally, in whole epochs. A convolutional network learns its first features from
    small images as well, in a fraction of the time (Howard, DAWNBench 2018,
    https://www.fast.ai/posts/2018-04-30-dawnbench-fastai.html).

    Raises UserError for an epoch that the run does not have.
    """
    if epoch not in range(1, settings.epochs + 1):
        raise UserError(f"epoch must be from 1 to {settings.epochs}, got {epoch}")
    sizes = [*range(settings.first_size, 32, 4), 32]
    return sizes[(epoch - 1) * len(sizes) // settings.epochs]


def short_run(device: str) -> int:
    """Epochs for a run that somebody waits for: 12 on a device "cpu", 24 on others.

    `best` passes the assignment's 85% in 12 and 90% in 24: results/short and results/notebook.
    """
    return 12 if device == "cpu" else 24


def whole_number(text: str | int, name: str) -> int:
    """A setting that may be text, as environment variables are. Raises UserError if it is no whole number."""
    try:
        return int(str(text))  # Not int(text), which would truncate 2.5 to 2.
    except ValueError as error:
        raise UserError(f"{name} must be a whole number, got {text!r}") from error
