"""The value filter of a Census query."""

from __future__ import annotations

import ast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scio.data import build_obs_value_filter

VALUES = st.one_of(
    st.text(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
)


def test_the_filters_of_the_seed_become_one_query():
    filters = {
        "tissue": ["lung", "heart", "liver"],
        "is_primary_data": True,
        "assay": ["10x 3' v3"],
    }
    assert build_obs_value_filter(filters) == (
        "tissue in ['lung', 'heart', 'liver'] and is_primary_data == True "
        'and assay in ["10x 3\' v3"]'
    )


@given(
    st.dictionaries(
        st.sampled_from(["tissue", "assay", "x_1"]), VALUES | st.lists(VALUES, min_size=1)
    )
)
@settings(deadline=None)
def test_every_value_stays_one_literal_whatever_its_characters(filters):
    text = build_obs_value_filter(filters)
    if not filters:
        assert text is None
        return
    tree = ast.parse(text, mode="eval").body
    clauses = tree.values if isinstance(tree, ast.BoolOp) else [tree]
    read = {c.left.id: ast.literal_eval(c.comparators[0]) for c in clauses}
    assert list(read.items()) == list(
        filters.items()
    )  # order kept, nothing escaped from its quotes
    assert "\n" not in text


@pytest.mark.parametrize(
    "value", ["10x 3' v3", 'say "x"', "'\"", "back\\slash", "line\nbreak", "' or True or '"]
)
def test_quotes_backslashes_and_newlines_are_escaped(value):
    text = build_obs_value_filter({"assay": value})
    assert eval(text, {"assay": value}) is True
    assert eval(text, {"assay": "other"}) is False


def test_numpy_scalars_and_sets_are_plain_values():
    filters = {"n": np.int64(3), "keep": np.bool_(True), "tissue": {"lung", "heart"}}
    assert build_obs_value_filter(filters) == (
        "n == 3 and keep == True and tissue in ['heart', 'lung']"
    )


def test_nothing_asked_for_is_none():
    assert build_obs_value_filter({}) is None
    assert build_obs_value_filter(None) is None


@pytest.mark.parametrize("key", ["", "a b", "a' or 'b", "1a", "class", "True", "a-b", 3])
def test_a_key_that_is_no_identifier_is_refused(key):
    with pytest.raises(ValueError, match="by an identifier, not"):
        build_obs_value_filter({key: 1})


def test_an_empty_list_is_refused():
    with pytest.raises(ValueError, match="list of the filter 'tissue' is empty"):
        build_obs_value_filter({"tissue": []})


@pytest.mark.parametrize("value", [None, {"a": 1}, b"x", [["a"]], 1j])
def test_other_types_are_refused(value):
    with pytest.raises(TypeError, match="the filter 'tissue' has a"):
        build_obs_value_filter({"tissue": value})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, -np.inf]])
def test_numbers_that_equal_nothing_are_refused(value):
    with pytest.raises(ValueError, match="equals nothing"):
        build_obs_value_filter({"n": value})
