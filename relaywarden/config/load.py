"""load - read relaywarden.yaml and tenants.d/*.yaml, and report every fault at once.

Each fault names the file, the line, the path of the key (`plans.standard.limits[2]`) and what was expected there.
JSON files are YAML too.  Known limit: a key that comes in through a YAML merge (`<<:`) is reported at the line of the
section that merges it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from relaywarden.config import references
from relaywarden.config.settings import Settings
from relaywarden.errors import ConfigError, Problem

DEFAULT_PATH = Path("/etc/relaywarden/relaywarden.yaml")
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's where it is there: ten times as fast
_Path = tuple[str | int, ...]
_Marks = dict[_Path, str]  # path of a key -> "file:line"
_MERGEABLE = ("tenants", "plans")
_WHOLE, _NUMBER, _YES_NO, _DATE = "a whole number", "a number", "true or false", "a date such as 2026-11-24"
_PLAIN = {  # pydantic's words for a programmer, in words for the operator: "expected ..., got ..."
    "model_type": "a mapping of keys", "model_attributes_type": "a mapping of keys", "dict_type": "a mapping of names",
    "list_type": "a list", "string_type": "text", "path_type": "a file name",
    "int_parsing": _WHOLE, "int_type": _WHOLE, "int_from_float": _WHOLE, "int_parsing_size": "a smaller whole number",
    "float_parsing": _NUMBER, "float_type": _NUMBER, "finite_number": _NUMBER,
    "bool_parsing": _YES_NO, "bool_type": _YES_NO,
    "greater_than_equal": "at least {ge}", "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}", "less_than": "less than {lt}",
    "too_short": "at least one entry", "string_too_short": "at least {min_length} characters",
    "string_pattern_mismatch": "text of the form {pattern}", "enum": "one of {choices}", "literal_error": "one of {choices}",
    "date_type": _DATE, "date_parsing": _DATE, "date_from_datetime_parsing": _DATE, "date_from_datetime_inexact": _DATE,
}  # fmt: skip
_UNFIT = (ValueError, LookupError, ArithmeticError, AttributeError)  # what yaml lets through for `2026-13-22`, `!!int ""`, ...
_SHOWN = 60  # characters of a wrong value


def load(path: Path) -> Settings:
    """The validated settings; raises ConfigError with every problem found."""
    document, marks, problems = _read(path)
    for extra in sorted(path.parent.glob("tenants.d/*.yaml")):
        part, part_marks, part_problems = _read(extra)
        problems += part_problems
        if part and not set(part) & set(Settings.model_fields):
            part, part_marks = {"tenants": part}, {("tenants", *key): mark for key, mark in part_marks.items()}
        problems += _merge(document, part, marks, part_marks, str(extra))
    problems += [Problem(_where(where, marks, path), what) for where, what in references.check(document)]
    try:
        settings = Settings.model_validate(document)
    except ValidationError as error:
        problems += [_problem(item, marks, path) for item in error.errors(include_url=False) if not _is_echo(item)]
        raise ConfigError(problems) from None
    if problems:
        raise ConfigError(problems)
    return settings


def located(path: Path, problems: Sequence[Problem]) -> list[Problem]:
    """The problems with `file:line: ` before those places that the configuration has; what was found has no line else."""
    marks: _Marks = {}
    for file in [path, *sorted(path.parent.glob("tenants.d/*.yaml"))]:
        try:
            document, part, _ = _read(file)
        except ConfigError:
            continue  # gone or broken since it was loaded: then it has no lines
        merged = file == path or set(document) & set(Settings.model_fields)
        marks |= {key if merged else ("tenants", *key): mark for key, mark in part.items()}
    lines = {_dotted(key): mark for key, mark in marks.items() if key}
    return [_located(problem, lines) for problem in problems]


def _located(problem: Problem, lines: dict[str, str]) -> Problem:
    """At the line of the key, or else of the section that would hold it."""
    ends = [match.start() for match in re.finditer(r"[.\[]", problem.where)]
    for end in (len(problem.where), *reversed(ends)):
        if (line := lines.get(problem.where[:end])) is not None:
            return Problem(f"{line}: {problem.where}", problem.what)
    return problem


def _read(path: Path) -> tuple[dict[str, Any], _Marks, list[Problem]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([Problem(str(path), f"cannot read the configuration: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(str(path), f"expected UTF-8 text, byte {error.start} is not")]) from error
    try:
        node = yaml.compose(text, Loader=_Loader)
        marks: _Marks = {}
        problems = list(_walk(node, (), marks, str(path)))
        document = _constructed(node) if node is not None else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError([Problem(where, f"not valid YAML: {getattr(error, 'problem', None) or error}")]) from error
    if document is None:
        return {}, {}, []
    if not isinstance(document, dict):
        raise ConfigError([Problem(f"{path}:1", f"expected a mapping of settings, got {type(document).__name__}")])
    return document, marks, problems


def _constructed(node: yaml.Node) -> Any:
    """The document.  What only looks like a date or a number (2026-13-22) stays text: its key says what it expected."""
    try:
        return _Loader("").construct_document(node)
    except _UNFIT:
        todo, seen = [node], set[int]()
        while todo:
            part = todo.pop()
            if id(part) in seen:
                continue  # an alias
            seen.add(id(part))
            if isinstance(part, yaml.ScalarNode):
                _as_text_if_unfit(part)
            elif isinstance(part, yaml.MappingNode):
                todo += [half for pair in part.value for half in pair]
            elif isinstance(part, yaml.SequenceNode):
                todo += part.value
        return _Loader("").construct_document(node)


def _as_text_if_unfit(scalar: yaml.ScalarNode) -> None:
    try:
        _Loader("").construct_document(scalar)
    except _UNFIT:
        scalar.tag = "tag:yaml.org,2002:str"


def _walk(node: yaml.Node | None, where: _Path, marks: _Marks, file: str) -> Iterator[Problem]:
    """Note the line of every key; a key that stands twice in one mapping is a fault YAML itself would pass over."""
    if node is None or len(where) > 32:
        return
    marks.setdefault(where, f"{file}:{node.start_mark.line + 1}")
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _walk(item, (*where, index), marks, file)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                yield Problem(f"{file}:{key.start_mark.line + 1}: {_dotted((*where, name))}", "this key stands twice")
            seen.add(name)
            marks[(*where, name)] = f"{file}:{key.start_mark.line + 1}"
            yield from _walk(value, (*where, name), marks, file)


def _merge(document: dict[str, Any], part: dict[str, Any], marks: _Marks, part_marks: _Marks, file: str) -> Iterator[Problem]:
    for section, entries in part.items():
        where = part_marks.get((section,), file)
        if section not in _MERGEABLE:
            yield Problem(f"{where}: {section}", f"expected only {' and '.join(_MERGEABLE)} in tenants.d")
            continue
        if not isinstance(entries, dict):
            yield Problem(f"{where}: {section}", "expected a mapping")
            continue
        target = document.setdefault(section, {})
        if not isinstance(target, dict):
            continue  # the fault in the main file is reported by the validation
        for name, value in entries.items():
            if name in target:
                first = marks.get((section, str(name)), "the main file")
                yield Problem(f"{part_marks.get((section, str(name)), file)}: {section}.{name}", f"already defined at {first}")
                continue
            target[name] = value
            marks.update({key: mark for key, mark in part_marks.items() if key[:2] == (section, str(name))})


def _problem(item: Any, marks: _Marks, path: Path) -> Problem:
    where: _Path = tuple(item["loc"])
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        message = f"unknown key; {_known_keys(where[:-1])}"
    elif item["type"] == "missing":
        message = "this key is required"
    elif item["type"] in _PLAIN:
        message = _plainly(item)
    return Problem(_where(where, marks, path), message)


def _is_echo(item: Any) -> bool:
    """Of `unknown_login: {plan: 5}` pydantic says too that a mapping is no word; that it was not meant as one is plain."""
    return item["type"] == "literal_error" and isinstance(item["input"], dict) and str(item["loc"][-1]).startswith("literal[")


def _plainly(item: Any) -> str:
    """`expected ..., got ...`.  Only for values of a kind that holds no secret: a store's URL never comes here."""
    told = dict(item.get("ctx") or {})
    told = {name: int(v) if isinstance(v, float) and v.is_integer() else v for name, v in told.items()}  # 1, not 1.0
    told["choices"] = ", ".join(re.findall(r"'([^']*)'", str(told.get("expected", ""))))
    value = item["input"]
    kinds = {
        dict: "a mapping" if value else "an empty mapping",
        list: "a list" if value else "an empty list",
        type(None): "nothing",
        bool: str(value).lower(),
    }
    shown = kinds.get(type(value)) or (repr(value) if isinstance(value, str | int | float) else f"'{value}'")
    return f"expected {_PLAIN[item['type']].format(**told)}, got {shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '...'}"


def _known_keys(where: _Path) -> str:
    """The keys that the table has at this place, for the reader of an 'unknown key'."""
    model: Any = Settings
    for part in where:
        fields = getattr(model, "model_fields", {})
        if part in fields:
            model = _inner_model(fields[part].annotation)
    names = ", ".join(getattr(model, "model_fields", {}))
    return f"expected one of {names}" if names else "expected none here"


def _inner_model(annotation: Any) -> Any:
    if hasattr(annotation, "model_fields"):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _inner_model(argument)
        if found is not None:
            return found
    return None


def _where(where: _Path, marks: _Marks, path: Path) -> str:
    """`file:line: dotted.path`; pydantic's own path may go deeper than the file does (union members), so search upward."""
    known = where
    while known and known not in marks:
        known = known[:-1]
    line = marks.get(known, str(path))
    shown = where if where in marks or not known else _visible(where, known)
    return f"{line}: {_dotted(shown)}" if shown else line


def _visible(where: _Path, known: _Path) -> _Path:
    """`known` plus the missing key itself, without names of pydantic's union branches and of its `[key]` marker."""
    rest = [part for part in where[len(known) :] if isinstance(part, int) or (part.isidentifier() and part.islower())]
    return (*known, *rest)


def _dotted(where: _Path) -> str:
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
