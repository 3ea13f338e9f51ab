"""
What each value of a step may be, and a line that says so where it is something else.

Structs check their bounds only when they are read, and say it in a library's words.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import inspect

from build.errors import BuildError
from build.steps import Step

WORDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def check(step: Step) -> None:
    """Raises BuildError naming the first value that cannot be, and what it could."""
    for field in msgspec.structs.fields(step):
        value = getattr(step, field.name)
        if not _can_be(value, field.type):
            may = _read_out(inspect.type_info(field.type))
            raise BuildError(f"{type(step).__name__}: {field.name} must be {may}, not {value!r}")


def _can_be(value: object, kind: Any) -> bool:
    try:
        # A list is taken for a tuple, but has another text: the step's name would be another.
        return bool(msgspec.convert(value, kind) == value)
    except msgspec.ValidationError:
        return False


def _read_out(kind: inspect.Type) -> str:
    """
    In words what a value of this type may be.

    Annotated[float, Meta(gt=0, lt=1)]  ->  "a number, above 0 and below 1"
    """
    match kind:
        case inspect.IntType():
            return f"a whole number{_bounds(kind)}"
        case inspect.FloatType():
            return f"a number{_bounds(kind)}"
        case inspect.LiteralType(values=values):
            return _either(values)
        case inspect.EnumType(cls=cls):
            return _either(each.value for each in cls)
        case inspect.VarTupleType(item_type=item, min_length=least):
            return f"a tuple of {'one' if least else 'none'} or more, each {_read_out(item)}"
        case inspect.UnionType(types=(some, inspect.NoneType())):  # None is to leave it out
            return _read_out(some)
        case inspect.BoolType():
            return "True or False"
    return "a text"


def _bounds(kind: inspect.IntType | inspect.FloatType) -> str:
    limits = ((word, getattr(kind, name)) for name, word in WORDS.items())
    said = " and ".join(f"{word} {limit:g}" for word, limit in limits if limit is not None)
    return said and f", {said}"


def _either(choices: Iterable[object]) -> str:
    *some, last = map(str, choices)
    return f"{', '.join(some)} or {last}" if some else last
