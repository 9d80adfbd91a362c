"""Bad arguments at random: every public function answers with UserError, in one line.

Files that functions read: test_fuzz_files.py.
"""

import dataclasses

import numpy as np
import pytest
from fuzzing import LONG, ODD, WORDS, assert_user_error, bad_inputs, other_than, was_refused
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from dataset import MOST_WORKERS, augmentations_alone, loaders, test_transform, train_transform
from model import NETWORKS, S9Net, build
from s9 import errors
from s9.analysis import interpret
from s9.analysis.receptive_field import receptive_field
from s9.analysis.summary import count_multiply_adds, summary
from s9.data.cifar10 import CLASSES
from s9.data.sources import DATASETS, Data, load
from s9.engine.hardware import DEVICES, PRECISIONS, make_accelerator
from s9.plots import curves, diagnostics, style
from s9.records import Epoch
from s9.settings import PRESETS, Settings, image_size, preset, whole_number

NAMED = {
    preset: PRESETS,
    build: NETWORKS,
    load: DATASETS,
    make_accelerator: DEVICES,
    lambda precision: make_accelerator("cpu", precision): ("auto", *PRECISIONS),
}
IMAGES = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
LABELS = np.arange(20) % 10
DATA = Data("cifar10", CLASSES, IMAGES, LABELS, IMAGES, LABELS)


@bad_inputs(100)
@given(st.sampled_from(list(NAMED)).flatmap(lambda f: st.tuples(st.just(f), other_than(NAMED[f]))))
def test_unknown_names(call):
    function, name = call
    message = assert_user_error(function, name)
    assert "choose one of" in message and repr(name) in message


FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


@bad_inputs(150)
@given(st.sampled_from(list(FIELDS)), st.one_of(ODD, WORDS))
def test_settings_of_another_kind(name, value):
    default = FIELDS[name].default
    number = isinstance(value, int | float) and not isinstance(value, bool)
    assume(type(value) is not type(default) and not (isinstance(default, float) and number))
    message = assert_user_error(Settings, **{name: value})
    assert message.startswith(f"--{name.replace('_', '-')} ")


@bad_inputs(40)
@given(st.one_of(WORDS, ODD))
def test_text_that_is_no_whole_number(text):
    assume(not isinstance(text, int) or isinstance(text, bool))
    assume(not (isinstance(text, str) and text.strip().replace("_", "").lstrip("+-").isdecimal()))
    assert "EPOCHS must be" in assert_user_error(whole_number, text, "EPOCHS")


@bad_inputs(40)
@given(st.integers(1, 200), st.integers())
def test_an_epoch_that_the_run_does_not_have(epochs, epoch):
    assume(not 1 <= epoch <= epochs)
    assert_user_error(image_size, Settings(epochs=epochs), epoch)


NO_WHOLE = st.one_of(st.none(), WORDS, st.floats(), st.lists(st.integers(), max_size=1))


@bad_inputs(60)
@given(
    st.one_of(
        st.fixed_dictionaries({"batch_size": st.integers(max_value=0) | NO_WHOLE}),
        st.fixed_dictionaries({"workers": st.integers(max_value=-1) | st.integers(MOST_WORKERS + 1)}),
        st.fixed_dictionaries({"workers": NO_WHOLE.filter(lambda value: value is not None)}),
        st.fixed_dictionaries({"seed": st.integers(max_value=-1) | NO_WHOLE}),
        st.fixed_dictionaries({"device": WORDS.filter(lambda word: word not in ("cpu", "meta"))}),
    )
)
def test_loaders_of_senseless_sizes(options):
    assert_user_error(loaders, DATA, **options)


BAD_CHANNEL = st.one_of(
    st.floats(max_value=-1e-3), st.floats(1.001), st.sampled_from([float("nan"), "0.5", None])
)
CHANNEL = st.floats(0.01, 1)
NO_CHANNELS = st.one_of(
    st.lists(CHANNEL, max_size=5).filter(lambda channels: len(channels) != 3),
    st.tuples(CHANNEL, CHANNEL, BAD_CHANNEL),
    st.tuples(BAD_CHANNEL, CHANNEL, CHANNEL),
    st.none(),
    CHANNEL,
)


@bad_inputs(100)
@given(
    st.one_of(
        st.tuples(st.sampled_from([train_transform, test_transform, augmentations_alone]), NO_CHANNELS),
        st.tuples(st.sampled_from([train_transform, test_transform]), st.just((0.5, 0.5, 0.5)), NO_CHANNELS),
        st.tuples(st.just(test_transform), st.just((0.5, 0.5, 0.5)), st.just((0.2, 0.0, 0.2))),
        st.tuples(st.just(train_transform), st.just((0.5, 0.5, 0.5)), st.just((0.2, 0.2, 0.2)), BAD_CHANNEL),
        st.tuples(
            st.just(train_transform),
            st.just((0.5, 0.5, 0.5)),
            st.just((0.2, 0.2, 0.2)),
            st.just(0.5),
            BAD_CHANNEL,
        ),
        st.tuples(
            st.just(augmentations_alone), st.just((0.5, 0.5, 0.5)), st.integers(max_value=-1) | NO_WHOLE
        ),
    )
)
def test_transforms_of_senseless_statistics(call):
    function, *arguments = call
    assert_user_error(function, *arguments)


SIZES = st.one_of(
    st.tuples(st.integers(-2, 5), st.integers(-2, 9), st.integers(-2, 9)),
    st.lists(st.integers(-1, 40), max_size=5).filter(lambda size: len(size) != 3).map(tuple),
    st.tuples(st.just(3), st.just(32), st.floats() | WORDS | st.none()),
    WORDS,
    st.none(),
    st.integers(),
)
"""S9Net takes three channels and no less than 29 pixels each way."""
NETWORK = S9Net()


@bad_inputs(60)
@given(st.sampled_from([receptive_field, summary, count_multiply_adds]), SIZES)
def test_images_that_the_network_does_not_take(function, size):
    assert_user_error(function, NETWORK, size)


@bad_inputs(15)
@given(st.sampled_from([receptive_field, summary, count_multiply_adds]), ODD | st.just(nn.Linear(3, 2)))
def test_what_is_no_network_for_images(function, network):
    assert_user_error(function, network)


@bad_inputs(40)
@given(
    st.one_of(
        st.tuples(st.just(S9Net), st.just("dropout"), st.floats(max_value=-1e-9)),
        st.tuples(st.just(S9Net), st.just("dropout"), st.floats(1.001) | st.just(float("nan"))),
        st.tuples(st.sampled_from([*NETWORKS.values()]), st.just("classes"), st.integers(max_value=0)),
    )
)
def test_networks_of_senseless_numbers(call):
    network, name, value = call
    assert_user_error(network, **{name: value})


ROW = st.builds(Epoch, st.integers(-3, 9), *[st.floats()] * 6)
NO_NAMES = st.none() | st.integers() | st.binary(max_size=4) | st.sampled_from(["", " ", "a\nb", "\x1b[2J"])

ARRAYS = st.one_of(
    ODD,
    st.tuples(
        st.sampled_from([(0, 32, 32, 3), (4, 32, 32), (4, 3, 32, 32), (4, 32, 32, 1), (4, 32, 32, 3)]),
        st.sampled_from([np.float32, np.int64, bool]),
    ).map(lambda drawn: np.zeros(*drawn)),
)
GOOD = {
    "images": IMAGES[:4],
    "labels": LABELS[:4],
    "probabilities": np.full((4, 10), 0.1, np.float32),
    "classes": CLASSES,
    "dataset": "cifar10",
}


@bad_inputs(100)
@given(
    st.one_of(
        st.tuples(st.just("images"), ARRAYS),
        st.tuples(
            st.just("labels"), ODD | st.sampled_from([LABELS, LABELS[:4] + 7, LABELS[:4] - 9, LABELS[:4] / 1])
        ),
        st.tuples(
            st.just("probabilities"),
            ODD | st.floats().filter(lambda p: not 0 <= p <= 1).map(lambda p: np.full((4, 10), p)),
        ),
        st.tuples(st.just("classes"), st.sampled_from([(), CLASSES[:9], (*CLASSES, "more")])),
        st.tuples(st.just("dataset"), NO_NAMES),
        st.tuples(st.just("count"), st.integers(max_value=1) | NO_WHOLE),
    )
)
def test_a_sample_of_mistakes_from_senseless_arguments(wrong):
    name, value = wrong
    assert_user_error(diagnostics.plot_misclassified, **GOOD | {name: value})


@bad_inputs(50)
@given(
    st.one_of(
        st.tuples(st.just("labels"), ODD | st.sampled_from([LABELS, LABELS[:4] + 7, LABELS[:4] / 1])),
        st.tuples(
            st.just("probabilities"),
            ODD | st.floats().filter(lambda p: not 0 <= p <= 1).map(lambda p: np.full((4, 10), p)),
        ),
    )
)
def test_confusion_and_calibration_from_senseless_predictions(wrong):
    name, value = wrong
    given = {"labels": GOOD["labels"], "probabilities": GOOD["probabilities"]} | {name: value}
    assert_user_error(interpret.calibration, **given)
    assert_user_error(diagnostics.plot_confusion, **given, classes=CLASSES, dataset="cifar10")


@bad_inputs(30)
@given(ARRAYS)
def test_kernels_and_grad_cam_from_senseless_arrays(array):
    if np.shape(array) != (4, 3, 32, 32):  # Large kernels, but kernels.
        assert_user_error(diagnostics.plot_kernels, array, np.zeros((4, 32, 32)), "cifar10")
    if np.shape(array) != (4, 32, 32):
        assert_user_error(diagnostics.plot_kernels, np.zeros((4, 3, 3, 3)), array, "cifar10")
    assert_user_error(interpret.first_layer, S9Net(), array, (0.5,) * 3, (0.5,) * 3)
    assert_user_error(interpret.grad_cam, S9Net(), array, LABELS[:4], (0.5,) * 3, (0.5,) * 3)


@bad_inputs(50)
@given(
    st.one_of(
        st.tuples(ARRAYS, st.just({"A": lambda image: image}), st.just("cifar10")),
        st.tuples(st.just(IMAGES[:2]), st.sampled_from([{}, None, []]), st.just("digits")),
        st.tuples(st.just(IMAGES[:2]), ARRAYS.map(lambda it: {"A": lambda image: it}), st.just("digits")),
        st.tuples(st.just(IMAGES[:2]), st.just({"A": lambda image: image}), NO_NAMES),
    )
)
def test_augmentations_from_senseless_arguments(arguments):
    assert_user_error(diagnostics.plot_augmentations, *arguments)


@bad_inputs(60)
@given(
    st.lists(ROW, max_size=4) | st.sampled_from([None, ()]),
    st.one_of(st.just("cifar10"), NO_NAMES),
    WORDS,
)
def test_curves_from_senseless_arguments(history, dataset, model):
    if isinstance(history, list) and history and dataset == "cifar10":
        epochs = [row.epoch for row in history]
        assume(epochs != sorted(set(epochs)))
    assert_user_error(curves.plot_metrics, history, dataset, model)


RATES = st.one_of(
    st.floats(max_value=-1e-9),
    st.sampled_from([float("nan"), float("inf"), None, "fast"]),
    st.lists(st.none()),
)


@bad_inputs(30)
@given(
    st.one_of(
        st.dictionaries(WORDS, st.dictionaries(WORDS, RATES, min_size=1, max_size=3), min_size=1, max_size=3),
        st.dictionaries(WORDS, st.just({}) | st.none(), max_size=2),
    )
)
def test_scaling_from_senseless_rates(scaling):
    assert_user_error(curves.plot_scaling, scaling, "a CPU")


FIGURE = curves.plot_metrics([Epoch(1, 0.1, 1.0, 50.0, 1.0, 50.0, 1.0)], "digits", "S9")


@bad_inputs(30)
@given(
    st.one_of(
        WORDS.filter(lambda word: "/" not in word and not word.lower().endswith(".png")),
        WORDS.map("file/{}.png".format),
        st.sampled_from([f"{LONG}.png", f"{LONG}/a.png", "folder.png", "file/a.png"]),
    )
)
def test_a_figure_saved_where_it_cannot_be(tmp_path_factory, monkeypatch, name):
    folder = tmp_path_factory.getbasetemp() / "figures"
    if not folder.exists():
        (folder / "folder.png").mkdir(parents=True)
        (folder / "file").write_text("kept", encoding="utf-8")
    monkeypatch.chdir(folder)
    assert_user_error(style.save, FIGURE, name)
    assert sorted(path.name for path in folder.rglob("*")) == ["file", "folder.png"]
    assert (folder / "file").read_text(encoding="utf-8") == "kept"


@bad_inputs(20)
@given(WORDS)
def test_an_error_is_one_line_and_2(message):
    parser = errors.CommandParser(prog="some.py")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        lines = []
        patch.setattr(parser, "_print_message", lambda text, file: lines.append(text))
        parser.error(message)
    assert (ended.value.code, lines) == (2, [f"some.py: error: {message}\n"])
    assert errors.UserError(message)._render_traceback_() == [f"UserError: {message}"]
    was_refused(message)
