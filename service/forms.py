"""
JSON to values of a kind, with errors that a caller can act on and that repeat nothing of theirs.

Knows nothing of HTTP, nor which kinds there are.
"""

from __future__ import annotations

import codecs
import difflib
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import UnionType
from typing import Any, Generic, TypeGuard, TypeVar, Union, get_args, get_origin

import msgspec

from models.errors import InvalidRequest, MalformedRequest

T = TypeVar("T")
Kind = TypeVar("Kind", bound=msgspec.Struct)


class FieldError(msgspec.Struct, frozen=True):
    """One thing wrong with the body; `pointer` is a JSON pointer (RFC 6901) to where."""

    pointer: str
    detail: str


class FieldsInvalid(InvalidRequest):
    """`InvalidRequest` that says which fields, for `Problem.errors`."""

    def __init__(self, *errors: FieldError) -> None:
        super().__init__("; ".join(f"{e.pointer or 'the body'}: {e.detail}" for e in errors))
        self.errors = list(errors)


class Form(Generic[Kind]):
    """
    How bodies of one kind are read. Fields may be values of a kind themselves.

    elsewhere  name of a field that another kind of body knows, deeper than its top -> what to say
    said       pointer -> what to say of whatever is wrong there
    """

    def __init__(
        self,
        kind: type[Kind],
        elsewhere: Mapping[str, str] | None = None,
        said: Mapping[str, str] | None = None,
    ) -> None:
        self._kind = kind
        self._elsewhere = elsewhere or {}
        self._said = said or {}
        self._decoder = msgspec.json.Decoder(kind)
        self._inner = {name: each for name, each in _types(kind) if _is_struct(each)}
        self._choices = {f"/{name}": _values(each) for name, each in _types(kind) if _is_enum(each)}
        for outer, inner in self._inner.items():
            for name, each in _types(inner):
                if _is_enum(each):
                    self._choices[f"/{outer}/{name}"] = _values(each)

    def read(self, body: bytes) -> Kind:
        """Raises `MalformedRequest` for what is not JSON, `FieldsInvalid` for what is not this."""
        try:
            return decoded(body, self._decoder)
        except msgspec.ValidationError as error:
            wrong = [self._field_error(str(error))]
            # An unknown field is often `inputs` misspelt: say both.
            needed = "inputs" in self._kind.__struct_fields__
            if needed and str(error).startswith(UNKNOWN) and _lacks_inputs(body):
                wrong.append(FieldError("", "Object missing required field `inputs`"))
            raise FieldsInvalid(*wrong) from None

    def convert(self, value: object, *, strict: bool = True) -> Kind:
        """As `read`, from a value already read from JSON. Not `strict`: "0.5" is a number too."""
        try:
            return msgspec.convert(value, self._kind, strict=strict)
        except msgspec.ValidationError as error:
            raise FieldsInvalid(self._field_error(str(error))) from None

    def _field_error(self, message: str) -> FieldError:
        """msgspec's message as a pointer and a detail that repeats nothing the caller wrote."""
        if message.startswith(UNKNOWN):
            return self._unknown_field(message)
        error = pointed(message)
        if error.pointer in self._said:
            return FieldError(error.pointer, self._said[error.pointer])
        if error.pointer in self._choices and error.detail.startswith("Invalid enum value"):
            return FieldError(error.pointer, f"it is one of {self._choices[error.pointer]}")
        return error

    def _unknown_field(self, message: str) -> FieldError:
        """A caller's text may be the field's name: only one that another kind knows is repeated."""
        for outer, inner in self._inner.items():
            if not message.endswith(f" - at `$.{outer}`"):
                continue
            for name, detail in self._elsewhere.items():
                if message.startswith(f"{UNKNOWN} `{name}` "):
                    return FieldError(f"/{outer}/{name}", detail)
            return FieldError(f"/{outer}", unknown(message, inner))
        return FieldError("", unknown(message, self._kind))


# How msgspec's message begins of a field it does not know; its name is of the caller's making.
UNKNOWN = "Object contains unknown field"
# A longer one is like none of ours.
_NAMED = re.compile(f"{UNKNOWN} `([^`]{{1,40}})`")


def unknown(message: str, kind: type[msgspec.Struct], what: str = "field") -> str:
    """What is said of such a message: the nearest of our own names, and all of them."""
    known = kind.__struct_fields__
    named = _NAMED.match(message)
    close = difflib.get_close_matches(named[1].lower(), known, n=1) if named else []
    hint = f"did you mean {close[0]}? " if close else ""
    return f"unknown {what}; {hint}known are {', '.join(known)}"


def decoded(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Raises `MalformedRequest` for what is not JSON, msgspec's `ValidationError` for the rest."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError as error:
        raise MalformedRequest(_malformed(body, str(error))) from None
    except UnicodeDecodeError:
        raise MalformedRequest("the body is not UTF-8") from None
    except RecursionError:
        raise MalformedRequest("the body is nested too deeply") from None


def pointed(message: str) -> FieldError:
    """
    msgspec's message as a pointer and a detail. Of an unknown field both may be the caller's own.

    "Expected `str`, got `int` - at `$.inputs[1]`"  ->  ("/inputs/1", "Expected `str`, got `int`")
    """
    found = _AT.search(message)
    steps = _STEP.finditer(found[1]) if found else ()
    pointer = "".join(f"/{step[1] or step[2] or '-'}" for step in steps)
    return FieldError(pointer, _safe(message[: found.start()] if found else message))


# Fewer bytes follow than the other half of the pair would take, and it has not begun.
_HALF_AT_END = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u).{2,5}\Z", re.DOTALL)


def _malformed(body: bytes, message: str) -> str:
    """What is not JSON, where msgspec's own message would lead astray."""
    if not body.strip():
        return "the body is empty"
    if body.startswith(codecs.BOM_UTF8):
        return "the body begins with a byte order mark: send the JSON without it"
    if "surrogate" in message or ("truncated" in message and _HALF_AT_END.search(body[-11:])):
        return "a \\u escape in the body is half of a surrogate pair and its other half is missing"
    return f"the body is not JSON: {_safe(message)}"


_AT = re.compile(r" - at `\$([^`]*)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]|\[\.\.\.\]")


class _Inputs(msgspec.Struct):
    inputs: msgspec.Raw


def _lacks_inputs(body: bytes) -> bool:
    try:
        msgspec.json.decode(body, type=_Inputs)
    except msgspec.ValidationError:
        return True
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # beyond the unknown field
        return False
    return False


def _types(kind: type[msgspec.Struct]) -> Iterator[tuple[str, Any]]:
    """Every field with its type; one of several types once for each."""
    for field in msgspec.structs.fields(kind):
        several = get_origin(field.type) in (Union, UnionType)
        for each in get_args(field.type) if several else (field.type,):
            yield field.name, each


def _is_struct(each: Any) -> TypeGuard[type[msgspec.Struct]]:
    return isinstance(each, type) and issubclass(each, msgspec.Struct)


def _is_enum(each: Any) -> TypeGuard[type[StrEnum]]:
    return isinstance(each, type) and issubclass(each, StrEnum)


def _values(each: type[StrEnum]) -> str:
    return ", ".join(each)


def _safe(message: str) -> str:
    """msgspec quotes an enum's value; a caller's text may sit there."""
    return re.sub(r"'[^']*'", "…", message)
