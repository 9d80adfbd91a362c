"""What the fuzz tests share: inputs for several of them."""

import json
import string

from conftest import long_tests
from hypothesis import settings
from hypothesis import strategies as st

FACTOR = 10 if long_tests() else 1


def examples(number):
    """Hypothesis's settings for so many examples, ten times as many in long tests."""
    return settings(max_examples=number * FACTOR)


WORDS = st.text(string.ascii_letters + string.digits + "äß世 .,:;=+*'\"\\%{}()[]<>|&$#@!?~^`-_/", max_size=12)
"""Anything that one can type, of any length from 0."""

LONG = "x" * 300
"""Longer than any file system allows a name to be."""


def json_values(keys=WORDS):
    """Any JSON value, with NaN and the infinities, which Python reads too."""
    leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS)
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4)
    )


def damaged_json(keys=WORDS):
    """Bytes that are not JSON, JSON of the wrong kind, and JSON nested too deep to read."""
    return st.one_of(
        st.binary(max_size=20),
        WORDS.map(str.encode),
        json_values(keys).map(lambda value: json.dumps(value).encode()),
        st.integers(5_000, 20_000).map(lambda depth: b'{"settings":' * depth),
    )
