"""Proves: a frozen class is what a frozen dataclass with slots is, where anybody looks."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
import weakref
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.values import as_dict, frozen, names_of, replace


@frozen
class Share:
    """What part of it there is."""

    weight: int
    quota_usec: int | None = None
    cpus: tuple[int, ...] = ()

    def double(self) -> Share:
        """Return one with twice the weight."""
        return replace(self, weight=2 * self.weight)

    @property
    def half(self) -> float:
        """Return that."""
        return self.weight / 2

    @classmethod
    def of(cls, weight: int) -> Share:
        """Return one of that weight."""
        return cls(weight)


@dataclasses.dataclass(frozen=True, slots=True)
class Reference:
    """The same, made by `dataclasses`."""

    weight: int
    quota_usec: int | None = None
    cpus: tuple[int, ...] = ()


@frozen
class Nothing:
    """Made of nothing."""


@frozen
class Nested:
    """Has another one in it."""

    share: Share
    name: str


@frozen
class Rounded:
    """Is equal by its own rule."""

    value: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rounded) and self.value // 10 == other.value // 10

    def __hash__(self) -> int:
        return hash(self.value // 10)


parts = st.tuples(
    st.integers(0, 3), st.none() | st.integers(0, 2), st.lists(st.integers(0, 1), max_size=2)
).map(lambda found: (found[0], found[1], tuple(found[2])))


@given(parts, parts)
def test_equality_hash_and_text_are_those_of_a_dataclass(
    one: tuple[int, int | None, tuple[int, ...]], other: tuple[int, int | None, tuple[int, ...]]
) -> None:
    assert (Share(*one) == Share(*other)) == (Reference(*one) == Reference(*other))
    assert hash(Share(*one)) == hash(Reference(*one))
    assert repr(Share(*one)) == repr(Reference(*one)).replace("Reference", "Share")
    assert as_dict(Share(*one)) == dataclasses.asdict(Reference(*one))


def test_values_are_given_in_order_or_by_name() -> None:
    assert Share(1, 2, (3,)) == Share(cpus=(3,), weight=1, quota_usec=2)
    assert Share(1) == Share(1, None, ())
    assert Share.of(3).double() == Share(6)
    assert Share(3).half == 1.5
    match Share(4, 5):
        case Share(weight, quota_usec):
            assert (weight, quota_usec) == (4, 5)


def test_what_does_not_fit_is_refused() -> None:
    refused: list[tuple[Callable[..., object], tuple[object, ...], dict[str, int]]] = [
        (Share, (), {}),
        (Share, (1, 2, (), 4), {}),
        (Share, (1,), {"weight": 1}),
        (Share, (1,), {"other": 1}),
        (Nothing, (1,), {}),
        (replace, (Share(1),), {"other": 1}),
    ]
    for make, values, named in refused:
        with pytest.raises(TypeError, match="argument"):
            make(*values, **named)


@pytest.mark.parametrize("name", ["weight", "quota_usec", "other", "half", "__class__"])
def test_nothing_can_be_changed(name: str) -> None:
    share = Share(1)
    with pytest.raises(AttributeError, match="cannot be changed"):
        setattr(share, name, 2)
    with pytest.raises(AttributeError, match="cannot be deleted"):
        delattr(share, name)
    assert share == Share(1)
    assert not hasattr(share, "__dict__")


def test_another_class_is_never_equal() -> None:
    others: list[object] = [Reference(1), (1, None, ()), Nothing(), 1]
    assert Share(1) not in others
    assert Nothing() == Nothing()
    assert len({Nothing(), Nothing(), Share(1), Share(1)}) == 2
    assert repr(Nothing()) == "Nothing()"


def test_what_a_class_defines_itself_stays() -> None:
    assert Rounded(11) == Rounded(19) != Rounded(20)
    assert hash(Rounded(11)) == hash(Rounded(19))
    assert Share.__doc__ == "What part of it there is."
    assert (Share.__module__, Share.__qualname__) == (__name__, "Share")


def test_what_cannot_be_hashed_can_be_compared() -> None:
    one, other = Nested(Share(1, cpus=[]), "x"), Nested(Share(1, cpus=[]), "x")  # type: ignore[arg-type]
    assert one == other
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


def test_a_class_with_base_classes_is_refused() -> None:
    with pytest.raises(TypeError, match="has base classes"):
        frozen(type("Child", (Reference,), {}))


def test_parts_by_name() -> None:
    nested = Nested(Share(1), "x")
    assert as_dict(nested) == {
        "share": {"weight": 1, "quota_usec": None, "cpus": ()},
        "name": "x",
    }
    assert replace(nested, name="y").share is nested.share
    assert names_of(Nested) == ("share", "name")
    for fails in (names_of, as_dict, replace):
        with pytest.raises(TypeError, match="is not frozen"):
            fails(Reference if fails is names_of else Reference(1))  # type: ignore[arg-type]


def test_it_can_be_copied_and_referred_to() -> None:
    nested = Nested(Share(1, cpus=(1, 2)), "x")
    assert copy.copy(nested) == copy.deepcopy(nested) == nested
    assert weakref.ref(nested)() is nested


def test_what_the_daemon_imports_has_no_slower_ones() -> None:
    """`inspect` alone is a megabyte of each of its processes."""
    code = "import procscope.cli.serve, procscope.daemon.healing, sys; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    loaded = ended.stdout.decode().split()
    assert "procscope.daemon.supervisor" in loaded
    assert not {"dataclasses", "inspect"} & set(loaded)
