"""YAML into frozen dataclasses. Unknown, missing and mistyped fields are refused by name."""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from vsr.errors import UsageError

T = TypeVar("T")


class _OnceLoader(yaml.SafeLoader):
    """Refuses a field that is written twice; of two yaml takes the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if names.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is written twice", key.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, cls: type[T], overrides: Sequence[str] = ()) -> T:
    """Read a file that describes one ``cls``, and apply overrides of the form ``train.lr=1.0e-6``.

    Raises:
        UsageError: names file, field and what was expected.
    """
    tree = read_tree(path)
    if not isinstance(tree, dict):
        raise UsageError(f"{path}: expected a mapping of fields, got {tree!r}")
    for override in overrides:
        _apply(tree, override)
    return from_tree(cls, tree, str(path))


def read_tree(path: Path) -> Any:
    """What a YAML file holds; UsageError when it cannot be read or is not YAML."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _OnceLoader)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: is not YAML: {error}") from error


def dump_yaml(described: Any) -> str:
    """YAML of a dataclass with every field, defaults included; `read_yaml` reads it back."""
    return yaml.safe_dump(_plain(dataclasses.asdict(described)), sort_keys=False)


def from_tree(cls: type[T], tree: Any, where: str) -> T:
    """Build a dataclass from nested mappings.

    Args:
        where: file and fields that lead here, for messages.
    """
    if not isinstance(tree, Mapping):
        raise UsageError(f"{where}: expected a mapping of fields, got {tree!r}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name in tree:
        if name not in fields:
            close = get_close_matches(str(name), fields, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known fields: {', '.join(fields)}"
            raise UsageError(f"{where}: unknown field {name!r}; {hint}")
    if missing := [name for name, field in fields.items() if name not in tree and _is_required(field)]:
        raise UsageError(f"{where}: missing {', '.join(missing)}")
    hints = typing.get_type_hints(cls)
    values = {name: _convert(hints[name], value, f"{where}: {name}") for name, value in tree.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _convert(hint: Any, value: Any, where: str) -> Any:
    """``value`` as the type ``hint``; integers count as floats and text as paths, nothing else changes its type."""
    kind, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_tree(hint, value, where)
    if kind in (types.UnionType, typing.Union):
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else _convert(inner, value, where)
    if kind is Literal:
        return _choice(arguments, value, where)
    if kind is tuple:
        return _sequence(arguments, value, where)
    accepted = {float: (int, float), Path: (str, Path)}.get(hint, (hint,))
    if isinstance(value, bool) != (hint is bool) or not isinstance(value, accepted):
        advice = " (YAML reads 1e-5 as text; write 1.0e-5)" if hint is float and isinstance(value, str) else ""
        raise UsageError(f"{where}: expected {hint.__name__}, got {value!r}{advice}")
    return hint(value)


def _choice(choices: tuple, value: Any, where: str) -> Any:
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise UsageError(f"{where}: expected one of {', '.join(map(str, choices))}; got {value!r}")
    return value


def _sequence(hints: tuple, value: Any, where: str) -> tuple:
    """A list of one type, tuple[X, ...], or of fixed length, tuple[X, Y]."""
    length = None if hints[-1] is Ellipsis else len(hints)
    if not isinstance(value, list) or length not in (None, len(value)):
        raise UsageError(f"{where}: expected a list{f' of {length}' if length else ''}, got {value!r}")
    each = [hints[0]] * len(value) if length is None else hints
    return tuple(
        _convert(hint, item, f"{where}: item {i}") for i, (hint, item) in enumerate(zip(each, value, strict=True))
    )


def _apply(tree: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise UsageError(f"{override!r}: expected an override of the form section.field=value, e.g. train.lr=1.0e-6")
    *sections, field = name.split(".")
    for section in sections:
        if not isinstance(tree.get(section), dict):
            tree[section] = {}
        tree = tree[section]
    try:
        tree[field] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{override!r}: the value is not YAML: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
