"""describe - the table of settings as reStructuredText; `python -m relaywarden.config.describe` writes docs/settings.rst.

The page is made from the table itself, and a test compares the two, so the documentation cannot drift.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from relaywarden.config.fields import format_size
from relaywarden.config.settings import Settings
from relaywarden.limits import format_duration, parse_amount

_HEAD = """\
Settings
========

Every key of ``relaywarden.yaml``, with its default and what it does.  Made from ``relaywarden/config/settings.py`` by
``make docs``; do not edit by hand.

Amounts: ``1_000``, ``2GiB``.  Durations: ``10s``, ``15m``, ``hour``, ``30d``; a bare number is seconds.
Limits: ``500/hour`` (at most 500 in any hour), ``10/s burst 50`` (10 a second on average, 50 at once).  Addresses:
``unix:/path``, ``inet:host:port``.  ``NAME`` stands for a name of your choice.
"""


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(_section(path, model) for path, model in _models("", Settings))


def _models(path: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    yield path, model
    for name, field in model.model_fields.items():
        inner = _inner(field.annotation)
        if inner is not None:
            yield from _models(_join(path, name, field.annotation), inner)


def _join(path: str, name: str, annotation: Any) -> str:
    text = str(annotation)
    suffix = ".NAME" if text.startswith("dict[") else "[]" if text.startswith("list[") else ""
    return f"{path}.{name}{suffix}".removeprefix(".")


def _inner(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = [_inner(argument) for argument in get_args(annotation)]
    return next((model for model in found if model is not None), None)


def _section(path: str, model: type[BaseModel]) -> str:
    title = f"``{path}``" if path else "The file"
    lines = ["", title, "-" * len(title), "", (model.__doc__ or "").strip(), "", ".. list-table::", "   :header-rows: 1", "",
             "   * - key", "     - default", "     - meaning"]  # fmt: skip
    for name, field in model.model_fields.items():
        lines += [f"   * - ``{name}``", f"     - {_default(field)}", f"     - {field.description}"]
    return "\n".join(lines) + "\n"


def _notations(field: FieldInfo) -> Iterator[Callable[[int], str]]:
    """How the file writes a duration or an amount, which the programs keep as milliseconds and as octets."""
    for mark in (*field.metadata, *_marks(field.annotation)):
        if getattr(mark, "func", None) is format_duration:
            yield format_duration
        elif getattr(mark, "func", None) is parse_amount:
            yield format_size


def _marks(annotation: Any) -> Iterator[Any]:
    """The metadata of every branch of a union such as `Amount | None`; what a list holds is written by JSON."""
    if get_origin(annotation) in (Union, UnionType):
        for branch in get_args(annotation):
            yield from getattr(branch, "__metadata__", ())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is None or value in ("", [], {}):
        return "none"
    if isinstance(value, BaseModel):
        return "see below"
    for notation in _notations(field):
        return f"``{notation(value)}``"
    plain = json.loads(json.dumps(value, default=lambda item: item.value if isinstance(item, Enum) else str(item)))
    return f"``{plain if isinstance(plain, str) else json.dumps(plain)}``"


if __name__ == "__main__":
    sys.stdout.write(page())
