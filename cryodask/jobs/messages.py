"""One-line messages that name the file, the field, its value and what was expected."""

import difflib
import types
import typing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import annotated_types
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from cryodask.errors import InputError


@dataclass(frozen=True)
class Source:
    """Where parameters were written: the name of a file, empty for a Python call."""

    file: str = ""

    @property
    def place(self) -> str:
        """The words that begin a message, e.g. `config.yaml: `."""
        return f"{self.file}: " if self.file else ""

    def label(self, key: str) -> str:
        """Return the user's word for a dotted key."""
        return key

    def error(self, text: str) -> InputError:
        """Return an InputError whose text begins with the place."""
        return InputError(self.place + text)

    def wrong(self, key: str, value: object, expected: str) -> InputError:
        """Return the InputError `place: field = value: expected`."""
        return self.error(f"{self.label(key)} = {value}: {expected}")

    @contextmanager
    def placed(self, key: str) -> Iterator[None]:
        """Put place and field before an InputError that is raised inside, by what reads a file."""
        try:
            yield
        except InputError as error:
            raise self.error(f"{self.label(key)}: {error}") from None


class FieldError(ValueError):
    """What a validator of a whole model raises: the field at fault, its value, what is expected."""

    def __init__(self, field: str, value: object, expected: str) -> None:
        super().__init__(expected)
        self.field, self.value = field, value


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean NAME?)` with the nearest known name, or an empty text."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""


def input_error(error: ValidationError, model: type[BaseModel], source: Source) -> InputError:
    """Turn the first finding of pydantic into one line in the words of the file."""
    findings = error.errors(include_url=False)
    same_field = [finding for finding in findings if finding["loc"][:1] == findings[0]["loc"][:1]]
    finding = max(same_field, key=lambda found: len(found["loc"]))
    keys, field = _find_field(model, [str(part) for part in finding["loc"]])
    key = ".".join(keys)
    label = source.label(key)
    if finding["type"] == "missing" and finding["loc"][-1] == keys[-1]:
        return source.error(f"{label} is required")
    if finding["type"] == "extra_forbidden":
        name = str(finding["loc"][-1])
        near = did_you_mean(name, _nested_fields(model, keys))
        return source.error(f"unknown key {'.'.join([*keys, name])}{near}")
    cause = finding.get("ctx", {}).get("error")
    if isinstance(cause, FieldError):
        return source.wrong(".".join([*keys, cause.field]), _short(cause.value), str(cause))
    if finding["input"] is None:
        return source.error(f"{label} is required, found none")
    expected = str(cause) if cause is not None else f"expected {describe(field, label) or finding['msg']}"
    return source.wrong(key, _short(finding["input"]), expected)


def describe(field: FieldInfo | None, label: str) -> str:
    """Return what a field accepts in words, e.g. `0 < angincr <= 180`."""
    if field is None:
        return ""
    options = [item for option in _flatten(field.annotation) for item in _repeated(option)]
    words = [str(word) for option in options if get_origin(option) is Literal for word in get_args(option)]
    if words:
        words += ["a number"] if float in options else []
        return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
    if bool in options:
        return "true or false"
    if int in options or float in options:
        kind = "an integer" if int in options else "a number"
        return _within(_bounds([*field.metadata, *_annotations(field.annotation)]), kind, label)
    lengths = [len(get_args(option)) for option in options if get_origin(option) is tuple]
    number = f"a list of {lengths[0]} numbers" if lengths else ""
    model = _nested_model(field.annotation)
    mapping = f"a mapping of {', '.join(model.model_fields)}" if model is not None else ""
    return " or ".join(filter(None, ["a name" if str in options else "", number, mapping]))


def _within(bounds: dict[str, str], kind: str, label: str) -> str:
    match bounds:
        case {"low": low, "high": high}:
            return f"{low} {label} {high}"
        case {"low": low}:
            value, sign = low.split()
            return f"{kind} {sign.replace('<', '>')} {value}"
    return kind


def _find_field(model: type[BaseModel], loc: list[str]) -> tuple[list[str], FieldInfo | None]:
    """Follow pydantic's location through nested models, leaving out list indices and the tags of unions."""
    keys: list[str] = []
    field: FieldInfo | None = None
    level: type[BaseModel] | None = model
    for part in loc:
        if level is not None and part in level.model_fields:
            keys.append(part)
            field = level.model_fields[part]
            level = _nested_model(field.annotation)
    return keys, field


def _nested_fields(model: type[BaseModel], keys: list[str]) -> list[str]:
    level = model
    for key in keys:
        level = _nested_model(level.model_fields[key].annotation) or level
    return list(level.model_fields)


def _flatten(annotation: Any) -> list[Any]:
    """Return the members of a union, without Annotated and None."""
    origin = get_origin(annotation)
    if origin is typing.Annotated:
        return _flatten(get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [item for part in get_args(annotation) for item in _flatten(part)]
    return [] if annotation is type(None) else [annotation]


def _repeated(option: Any) -> list[Any]:
    """Return the element type of `tuple[X, ...]`, else the type itself."""
    arguments = get_args(option)
    return [arguments[0]] if get_origin(option) is tuple and Ellipsis in arguments else [option]


def _annotations(annotation: Any) -> list[Any]:
    found = list(getattr(annotation, "__metadata__", ()))
    inner = [item for part in get_args(annotation) for item in _annotations(part)]
    metadata = [item for entry in found for item in getattr(entry, "metadata", [entry])]
    return metadata + inner


def _bounds(metadata: list[Any]) -> dict[str, str]:
    bounds = {}
    for item in metadata:
        match item:
            case annotated_types.Gt():
                bounds["low"] = f"{item.gt} <"
            case annotated_types.Ge():
                bounds["low"] = f"{item.ge} <="
            case annotated_types.Lt():
                bounds["high"] = f"< {item.lt}"
            case annotated_types.Le():
                bounds["high"] = f"<= {item.le}"
    return bounds


def _nested_model(annotation: Any) -> type[BaseModel] | None:
    for option in _flatten(annotation):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
        inner = get_args(option)
        if inner and isinstance(inner[0], type) and issubclass(inner[0], BaseModel):
            return inner[0]
    return None


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
