import dataclasses
import json

import pytest

from model import NETWORKS
from s9.errors import UserError
from s9.settings import PRESETS, Settings, from_record, image_size, preset, short_run, whole_number


def sizes(first_size, epochs):
    settings = Settings(first_size=first_size, epochs=epochs)
    return [image_size(settings, epoch) for epoch in range(1, epochs + 1)]


def test_images_grow_by_4_pixels_in_equal_parts_of_the_run():
    assert sizes(20, 8) == [20, 20, 24, 24, 28, 28, 32, 32]
    assert sizes(26, 3) == [26, 30, 32]
    assert sizes(32, 3) == [32, 32, 32]
    assert sizes(20, 5) == [20, 20, 24, 28, 32]
    assert sizes(8, 2) == [8, 20]
    for epoch in (-1, 0, 4):
        with pytest.raises(UserError, match=f"epoch must be from 1 to 3, got {epoch}"):
            image_size(Settings(epochs=3), epoch)


def test_presets_are_named_after_networks():
    assert {name: preset(name).model for name in PRESETS} == dict(zip(PRESETS, PRESETS, strict=True))
    assert PRESETS.keys() <= NETWORKS.keys()
    assert preset("reference") == Settings()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", 0, "--epochs must be at least 1, got 0"),
        ("epochs", 100_001, "--epochs must be at most 100,000, got 100001"),
        ("epochs", 8.5, "--epochs must be a whole number, got 8.5"),
        ("epochs", True, "--epochs must be a whole number, got True"),
        ("weight_decay", "8", "--weight-decay must be a number, got '8'"),
        ("weight_decay", float("nan"), "--weight-decay must be at least 0, got nan"),
        ("weight_decay", float("inf"), "--weight-decay must be at most 1, got inf"),
        ("validation", 1, "--validation must be true or false, got 1"),
        ("model", None, "--model must be a name, got None"),
    ],
)
def test_a_value_of_another_type_or_outside_of_its_range_is_refused(name, value, message):
    """For all settings: tests/fuzz."""
    with pytest.raises(UserError) as caught:
        Settings(**{name: value})
    assert str(caught.value) == message


@pytest.mark.parametrize("field", dataclasses.fields(Settings), ids=lambda field: field.name)
def test_the_ends_of_a_range_are_in_it_and_read_back_as_they_were_written(field):
    for end in (field.metadata["low"], field.metadata["high"]):
        settings = Settings() if end is None else Settings(**{field.name: end})
        assert from_record(json.loads(json.dumps(dataclasses.asdict(settings)))) == settings


def test_a_record_may_lack_only_settings_added_since():
    recorded = dataclasses.asdict(PRESETS["best"])
    assert from_record(recorded) == PRESETS["best"]
    del recorded["rise"]
    assert from_record(recorded) == from_record(recorded | {"full_size": 0.0}) == PRESETS["best"]
    assert Settings().rise == 0.2
    for name in ("momentum", "full_size"):
        with pytest.raises(UserError, match=f"setting '{name}' is unknown"):
            from_record(recorded | {name: 0.9})
    del recorded["validation"]
    with pytest.raises(UserError, match="setting 'validation' is missing"):
        from_record(recorded)


def test_a_short_run_is_shorter_on_a_cpu():
    assert [short_run(device) for device in ("cpu", "cuda", "mps")] == [12, 24, 24]


@pytest.mark.parametrize("text", ["", "three", "3.5", "1e3", 2.5, None])
def test_text_that_is_no_whole_number_is_refused(text):
    with pytest.raises(UserError, match="EPOCHS must be a whole number, got"):
        whole_number(text, "EPOCHS")
    assert whole_number(" 12 ", "EPOCHS") == 12
