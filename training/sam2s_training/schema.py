"""From plain YAML values to dataclasses: checked types, unknown keys refused with the nearest."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

from sam2s_model.errors import Sam2sError

T = TypeVar("T")


class RecipeError(Sam2sError):
    """A recipe that cannot be followed."""


class UnknownKeyError(RecipeError):
    """A key that nothing reads."""

    def __init__(self, where: str, key: object, known: Sequence[str]) -> None:
        near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'? " if near else ""
        super().__init__(f"{where}: there is no key '{key}'; {hint}Keys: {', '.join(known)}")


def build(kind: type[T], value: object, where: str) -> T:
    """Make a dataclass of a mapping, nested ones too.

    Args:
        kind: the dataclass.
        value: plain values as YAML gives them.
        where: how messages name the place, such as `nano.yaml: optim`.
    """
    if value is None:
        value = {}
    if not isinstance(value, Mapping):
        raise RecipeError(f"{where}: expected a mapping of keys, not {value!r}")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(cast(Any, kind)) if f.init}
    for key in value:
        if key not in fields:
            raise UnknownKeyError(where, key, list(fields))
    given = {
        str(key): convert(hints[str(key)], item, f"{where}.{key}") for key, item in value.items()
    }
    missing = [
        name
        for name, field in fields.items()
        if name not in given
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise RecipeError(f"{where}: the key '{missing[0]}' is missing")
    try:
        return kind(**given)
    except Sam2sError as error:  # what __post_init__ refuses
        if isinstance(error, RecipeError):
            raise
        raise RecipeError(f"{where}: {error}") from error
    except (ValueError, TypeError) as error:
        raise RecipeError(f"{where}: {error}") from error


def convert(hint: Any, value: object, where: str) -> Any:
    """Give a plain value the type that a field asks for, or say what was expected."""
    if hint is Any:
        return value
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value, where)
    if origin is Literal:
        if value not in arguments:
            near = difflib.get_close_matches(str(value), [str(a) for a in arguments], n=1)
            raise RecipeError(
                f"{where} is {value!r}{f'; did you mean {near[0]!r}?' if near else ''}; "
                f"expected one of: {', '.join(map(str, arguments))}"
            )
        return value
    if dataclasses.is_dataclass(hint):
        return build(cast(type[Any], hint), value, where)
    if origin in (tuple, list):
        return _convert_sequence(origin, arguments, value, where)
    if isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields"):
        return hint(
            *_convert_sequence(tuple, tuple(typing.get_type_hints(hint).values()), value, where)
        )
    if origin in (dict, Mapping) or hint in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise RecipeError(f"{where}: expected a mapping, not {value!r}")
        of_key, of_item = arguments or (Any, Any)
        return {
            convert(of_key, key, where): convert(of_item, item, f"{where}.{key}")
            for key, item in value.items()
        }
    if origin is not None and issubclass(origin, Sequence):
        return _convert_sequence(tuple, (*arguments, ...), value, where)
    return _convert_plain(hint, value, where)


def _convert_plain(hint: Any, value: object, where: str) -> Any:
    if hint is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, str):  # YAML 1.1 reads 1e-3, without a point, as text
            try:
                return float(value)
            except ValueError:
                pass
        raise RecipeError(f"{where} is {value!r}; expected a number")
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint in (bool, str) and isinstance(value, hint):
        return value
    names = {int: "a whole number", bool: "true or false", str: "text", Path: "a path"}
    raise RecipeError(f"{where} is {value!r}; expected {names.get(hint, hint)}")


def _convert_sequence(
    origin: type, arguments: tuple[Any, ...], value: object, where: str
) -> tuple[Any, ...] | list[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise RecipeError(f"{where}: expected a list, not {value!r}")
    repeated = origin is list or (len(arguments) == 2 and arguments[1] is ...)
    if not repeated and len(value) != len(arguments):
        raise RecipeError(f"{where}: expected {len(arguments)} values, not {len(value)}")
    hints = [arguments[0]] * len(value) if repeated else list(arguments)
    items = [
        convert(hint, item, f"{where}[{n}]")
        for n, (hint, item) in enumerate(zip(hints, value, strict=True))
    ]
    return items if origin is list else tuple(items)


def _convert_union(arguments: tuple[Any, ...], value: object, where: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    options = [a for a in arguments if a is not type(None)]
    if len(options) == 1:
        return convert(options[0], value, where)
    records = [o for o in options if dataclasses.is_dataclass(o)]
    if records and isinstance(value, Mapping):
        # Dataclasses are told apart by `kind`, a field of one literal value each.
        kinds = {get_args(typing.get_type_hints(o)["kind"])[0]: o for o in records}
        if "kind" not in value:
            raise RecipeError(f"{where}: the key 'kind' is missing; one of: {', '.join(kinds)}")
        name = convert(Literal[tuple(kinds)], value["kind"], f"{where}.kind")
        return build(cast(type[Any], kinds[name]), value, where)
    problems = []
    for option in options:
        try:
            return convert(option, value, where)
        except RecipeError as error:
            problems.append(str(error))
    raise RecipeError(problems[-1])


def plain(value: Any) -> Any:
    """Turn dataclasses, tuples and paths back into what YAML and JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another; nested mappings are merged, all else is replaced."""
    result = dict(base)
    for key, value in over.items():
        known = result.get(key)
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            # Another kind of thing takes nothing over from the old one.
            if "kind" in value and value["kind"] != known.get("kind", value["kind"]):
                result[key] = dict(value)
            else:
                result[key] = merged(known, value)
        else:
            result[key] = value
    return result


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """List where two plain values differ, as `optim.lr: 0.001 -> 0.002`."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = dict.fromkeys([*old, *new])
        return [
            line
            for key in keys
            for line in differences(
                old.get(key), new.get(key), f"{where}.{key}" if where else str(key)
            )
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            line
            for n, (a, b) in enumerate(zip(old, new, strict=True))
            for line in differences(a, b, f"{where}[{n}]")
        ]
    return [] if old == new else [f"{where}: {old!r} -> {new!r}"]
