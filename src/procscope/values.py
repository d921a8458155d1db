"""Frozen data classes that cost next to nothing at the start of a process.

`dataclasses` imports `inspect`, and compiles six functions for each class: for what the daemon
imports that is a quarter of its start, and a megabyte that every process of it has. Here one
function is compiled, and the classes share the others. To type checkers it is the same (PEP 681).
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, NoReturn, TypeVar, dataclass_transform

_T = TypeVar("_T")


class _Frozen:
    """What all of them have in common."""

    __slots__ = ("__weakref__",)
    __match_args__: tuple[str, ...]
    """Of what the values are made."""
    _compared: Any
    """Returns all of that for one value."""

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return bool(self._compared(self) == self._compared(other))

    def __hash__(self) -> int:
        return hash(self._compared(self))

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in _parts(self).items())
        return f"{type(self).__qualname__}({values})"

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), tuple(_parts(self).values())

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be changed")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be deleted")


@dataclass_transform(frozen_default=True)
def frozen(cls: type[_T]) -> type[_T]:
    """Make of a class a frozen one with a slot for each annotation, to be used as a decorator.

    Its values are equal where they are of one class and made of equal things; where some of these
    are left aside, the class has `_compared`, an attrgetter of the others. What it defines itself
    stays. No default may be changed later. Raises TypeError for one with base classes: they would
    have to be frozen too.
    """
    if cls.__bases__ != (object,):
        raise TypeError(f"{cls.__name__} has base classes")
    names = tuple(cls.__annotations__)
    own = {name: what for name, what in vars(cls).items() if name not in _OF_ANY_CLASS}
    defaults = {name: own.pop(name) for name in names if name in own}
    own.setdefault("_compared", attrgetter(*names) if names else type)
    own |= {"__slots__": names, "__match_args__": names}
    made: Any = type(cls.__name__, (_Frozen,), own)
    made.__init__ = _init_of(made, names, defaults)
    return made  # type: ignore[no-any-return]


def replace(value: _T, **changes: object) -> _T:
    """Return a value that differs in `changes` alone. Raises TypeError, also for other classes."""
    return type(value)(**_parts(value) | changes)


def as_dict(value: object) -> dict[str, Any]:
    """Return what a value is made of, by name, also for the values in it. Raises TypeError."""
    return {
        name: as_dict(part) if isinstance(part, _Frozen) else part
        for name, part in _parts(value).items()
    }


def names_of(cls: type) -> tuple[str, ...]:
    """Return the names of what the values of a class are made of. Raises TypeError."""
    if not issubclass(cls, _Frozen):
        raise TypeError(f"{cls.__name__} is not frozen")
    return cls.__match_args__


_OF_ANY_CLASS = frozenset({"__dict__", "__weakref__"})
"""What a class has of its own accord if it has no slots."""


def _parts(value: object) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names_of(type(value))}


def _init_of(made: type, names: tuple[str, ...], defaults: dict[str, object]) -> object:
    """Compile `__init__`, which sets the slots past the class's refusal to be changed."""
    words = {f"set_{name}": vars(made)[name].__set__ for name in names}
    words |= {f"default_{name}": default for name, default in defaults.items()}
    parameters = [f"{name}=default_{name}" if name in defaults else name for name in names]
    body = [f"set_{name}(self, {name})" for name in names] or ["pass"]
    exec(f"def __init__({', '.join(['self', *parameters])}): {'; '.join(body)}", words)
    return words["__init__"]
