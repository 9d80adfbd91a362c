import dataclasses

import pytest

from model import NETWORKS
from s9.errors import UserError
from s9.settings import KINDS, PRESETS, Settings, from_record, image_size, preset, short_run, whole_number

FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


def sizes(first_size, epochs, full_size=0.0):
    settings = Settings(first_size=first_size, epochs=epochs, full_size=full_size)
    return [image_size(settings, epoch) for epoch in range(1, epochs + 1)]


def test_images_grow_by_4_pixels_in_equal_parts_of_the_run():
    assert sizes(20, 8) == [20, 20, 24, 24, 28, 28, 32, 32]
    assert sizes(26, 3) == [26, 30, 32]
    assert sizes(32, 3) == [32, 32, 32]
    assert sizes(24, 10, full_size=0.3) == [24, 24, 24, 24, 28, 28, 28, 32, 32, 32]
    assert sizes(24, 10, full_size=0.8) == [24, 28, *[32] * 8]
    assert sizes(8, 2, full_size=1.0) == [32, 32]
    for epoch in (-1, 0, 4):
        with pytest.raises(UserError, match=f"epoch must be from 1 to 3, got {epoch}"):
            image_size(Settings(epochs=3), epoch)


@pytest.mark.parametrize("first_size", range(8, 33))
def test_without_that_part_sizes_change_as_in_earlier_runs(first_size):
    steps = [*range(first_size, 32, 4), 32]
    for epochs in range(1, 101):
        assert sizes(first_size, epochs) == [steps[epoch * len(steps) // epochs] for epoch in range(epochs)]


def test_presets_are_named_after_networks():
    assert {name: preset(name).model for name in PRESETS} == dict(zip(PRESETS, PRESETS, strict=True))
    assert PRESETS.keys() <= NETWORKS.keys()
    assert preset("reference") == Settings()
    with pytest.raises(
        UserError, match="unknown preset 'slow': choose one of reference, best, dilated, fast"
    ):
        preset("slow")


def bad_values():
    """Per field: a value of another type, and one on each side of its range."""
    for name, field in FIELDS.items():
        low, high = field.metadata["low"], field.metadata["high"]
        kind = KINDS[type(field.default)]
        for wrong in (None, "8", True, 8.5) if kind != "a name" else (None, 8):
            if isinstance(wrong, bool) != (kind == "true or false") and (kind, wrong) != ("a number", 8.5):
                yield name, wrong, f"must be {kind}, got {wrong!r}"
        if low is not None:
            yield name, low - 1, f"must be at least {low}, got {low - 1}"
            yield name, high + 1, f"must be at most {high:,}, got {high + 1}"
            if isinstance(field.default, float):
                yield name, float("nan"), f"must be at least {low}, got nan"
                yield name, float("inf"), f"must be at most {high:,}, got inf"


@pytest.mark.parametrize(("name", "value", "message"), list(bad_values()))
def test_a_value_of_another_type_or_outside_of_its_range_is_refused(name, value, message):
    with pytest.raises(UserError) as caught:
        Settings(**{name: value})
    assert str(caught.value) == f"--{name.replace('_', '-')} {message}"
    for end in (FIELDS[name].metadata["low"], FIELDS[name].metadata["high"]):
        assert end is None or getattr(Settings(**{name: end}), name) == end


def test_a_record_may_lack_only_settings_added_since():
    recorded = dataclasses.asdict(PRESETS["best"])
    assert from_record(recorded) == PRESETS["best"]
    del recorded["rise"], recorded["full_size"]
    assert from_record(recorded) == PRESETS["best"]
    assert (Settings().rise, Settings().full_size) == (0.2, 0)
    with pytest.raises(UserError, match="setting 'momentum' is unknown"):
        from_record(recorded | {"momentum": 0.9})
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
