import pytest

from model import NETWORKS
from s9.errors import UserError
from s9.settings import PRESETS, Settings, image_size, preset, whole_number


def sizes(first_size, epochs):
    settings = Settings(first_size=first_size, epochs=epochs)
    return [image_size(settings, epoch) for epoch in range(1, epochs + 1)]


def test_images_grow_by_4_pixels_in_equal_parts_of_the_run():
    assert sizes(20, 8) == [20, 20, 24, 24, 28, 28, 32, 32]
    assert sizes(26, 3) == [26, 30, 32]
    assert sizes(32, 3) == [32, 32, 32]


@pytest.mark.parametrize("first_size", range(8, 33))
@pytest.mark.parametrize("epochs", [1, 2, 7, 30])
def test_images_never_shrink_nor_pass_32_and_end_as_large_as_the_run_allows(first_size, epochs):
    grown = sizes(first_size, epochs)
    assert grown == sorted(grown)
    assert grown[0] == first_size
    assert max(grown) <= 32
    if epochs >= 7:
        assert grown[-1] == 32


def test_presets_are_named_after_networks_that_exist():
    for name in PRESETS:
        assert preset(name).model in NETWORKS
    assert preset("reference") == Settings()


def test_an_unknown_preset_is_named():
    with pytest.raises(
        UserError, match="unknown preset 'slow': choose one of reference, best, dilated, fast"
    ):
        preset("slow")


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"epochs": -3},
        {"batch_size": 0},
        {"learning_rate": 0},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"bias_rate": -1},
        {"muon_rate": 1.5},
        {"weight_decay": -1e-4},
        {"label_smoothing": 1.1},
        {"augmentation": -0.1},
        {"shift": 1.5},
        {"first_size": 33},
        {"seed": -1},
    ],
)
def test_settings_that_make_no_sense_are_named(wrong):
    name = next(iter(wrong)).replace("_", "-")
    with pytest.raises(UserError, match=f"--{name} .* makes no sense: give a value from"):
        Settings(**wrong)


@pytest.mark.parametrize("text", ["", "three", "3.5", "1e3"])
def test_text_that_is_no_whole_number_is_named(text):
    with pytest.raises(UserError, match=r"EPOCHS=.* is not a whole number"):
        whole_number(text, "EPOCHS")
    assert whole_number(" 12 ", "EPOCHS") == 12
