"""Patches name their places as RFC 6901 says, and make what is not there."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from procscope.kubernetes.patches import append, pointer, remove, set_keys
from tests.unit.kubernetes import jsonpatch

KEYS = st.text(alphabet="ab~/01-", max_size=4)


def test_a_pointer_of_a_name_with_a_slash() -> None:
    assert pointer("metadata", "a~b/c", 0, "") == "/metadata/a~0b~1c/0/"


@settings(deadline=None)
@given(KEYS, st.none() | st.dictionaries(KEYS, st.text()), st.dictionaries(KEYS, st.text()))
def test_keys_are_set(key: str, present: dict[str, str] | None, values: dict[str, str]) -> None:
    document = {} if present is None else {key: present}
    after = jsonpatch.apply(document, set_keys(present, values, key))
    assert after.get(key, {}) == {**(present or {}), **values}


@settings(deadline=None)
@given(KEYS, st.none() | st.lists(st.integers()), st.lists(st.integers()))
def test_items_are_appended(key: str, present: list[int] | None, items: list[int]) -> None:
    document = {} if present is None else {key: present}
    after = jsonpatch.apply(document, append(present, items, key))
    assert after.get(key, []) == [*(present or []), *items]


@settings(deadline=None)
@given(st.dictionaries(KEYS, st.text(), min_size=1))
def test_a_key_is_removed(present: dict[str, str]) -> None:
    key = next(iter(present))
    assert jsonpatch.apply(present, [remove(key)]) == {
        name: value for name, value in present.items() if name != key
    }
