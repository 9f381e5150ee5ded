"""JSON and YAML from elsewhere, read within bounds: bytes, nesting, values with aliases expanded, digits of a number.

The bounds keep the cost of a text proportional to its size. Without them 30 kB of brackets end the process (the C
loader of YAML recurses), and 400 bytes of aliases that name each other take all memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import orjson
import yaml

from amc_sweeps.values import without_bare_nan

MOST_NESTING = 64  # mappings and lists inside each other
MOST_DIGITS = 3500  # of a number in YAML, also in hex: Python refuses to write more than 4300 decimal digits
MOST_SWEEP_BYTES = 256 * 1024  # of the YAML of one sweep; it is parsed in half a second at most

# A YAML text may hold _FREE_VALUES values, and one more for every _BYTES_A_VALUE bytes. Files that people and programs
# write have 15 to 40 bytes a value, and a value takes about 6 microseconds.
_FREE_VALUES = 50_000
_BYTES_A_VALUE = 10
_LONGEST_KEY = 19  # digits of a number that is a key
# A JSON text that strict readers may refuse: NaN and Infinity stand bare, or a number is beyond every float.
_LOOSE = re.compile(r"NaN|Infinity|[eE]\+?\d{3}")
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"


class TextError(ValueError):
    """A text is not JSON or YAML, or is beyond a bound; the message says which."""


def check_size(text: str | bytes, most: int) -> None:
    """Refuse a text with too many characters.

    Raises:
        TextError: it is larger than ``most``.
    """
    if len(text) > most:
        raise TextError(f"the text has {len(text):,} characters, at most {most:,} are read")


def read_file(path: Path, most: int) -> str:
    """Return the text of a UTF-8 file.

    Raises:
        OSError: it cannot be read.
        TextError: it is larger than ``most`` bytes, or is not UTF-8.
    """
    with path.open("rb") as file:
        return text_of_file(file.read(most + 1), most)


def text_of_file(content: bytes, most: int) -> str:
    """Return the text of a file of which ``most + 1`` bytes were read, see ``read_file``."""
    if len(content) > most:
        raise TextError(f"the file is larger than {most:,} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise TextError("not a text file in UTF-8") from error


def read_json(text: str | bytes, *, has_exact_integers: bool = True) -> Any:
    """Return the value that a JSON text holds; NaN and the infinities are allowed.

    Args:
        text: the text; bytes are UTF-8.
        has_exact_integers: False allows that whole numbers beyond 64 bits become floats. That is three times as fast.

    Raises:
        TextError: it is not JSON, is nested too deeply, or has a number of too many digits.
    """
    try:
        value = json.loads(text) if has_exact_integers else _loads(text)
    except RecursionError as error:
        raise TextError(_nested()) from error
    except ValueError as error:
        if "integer string conversion" in str(error):
            raise TextError(f"a number has more than {MOST_DIGITS:,} digits") from error
        raise TextError(f"this is not JSON: {error}") from error
    except TypeError as error:
        raise TextError(f"this is not JSON: {error}") from error
    brackets = text.count("{") + text.count("[") if isinstance(text, str) else text.count(b"{") + text.count(b"[")
    if brackets > MOST_NESTING and _is_too_deep(value):
        raise TextError(_nested())
    return value


def _loads(text: str | bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:  # it takes neither NaN nor lone surrogates
        return json.loads(text)


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MOST_NESTING + 1):
        inner = [item for item in level if isinstance(item, dict | list)]
        level = [part for item in inner for part in (item.values() if isinstance(item, dict) else item)]
        if not inner:
            return False
    return True


def _nested() -> str:
    return f"mappings and lists are nested more than {MOST_NESTING} deep"


def json_object(text: Any) -> tuple[dict[str, Any], str | None]:
    """Return the object that a stored JSON text holds, or an empty one and why it cannot be read."""
    try:
        value = read_json(text) if isinstance(text, str) else None
    except TextError as error:
        return {}, str(error)
    return (value, None) if isinstance(value, dict) else ({}, f"a JSON object is needed, not {str(text)[:60]!r}")


def json_texts(text: str) -> tuple[list[str], str | None]:
    """Return the texts that a stored JSON list holds, or none and why it cannot be read."""
    try:
        value = read_json(text)
    except TextError as error:
        return [], str(error)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value, None
    return [], f"a JSON list of texts is needed, not {text[:60]!r}"


def strict_json(text: str) -> str:
    """Return a JSON text as every reader takes it: NaN and the infinities become the texts that W&B has for them."""
    return json.dumps(without_bare_nan(json.loads(text))) if _LOOSE.search(text) else text


def strict_object(text: Any) -> str | None:
    """Return a stored JSON text as every reader takes it; None if it holds no object."""
    _, problem = json_object(text)
    return None if problem else strict_json(text)


class BoundedLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.1 as PyYAML reads it, by libyaml where PyYAML was built with it. Use it through ``read_yaml``."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping; refuse keys that are long numbers: they can be chosen to have equal hashes."""
        self.flatten_mapping(node)
        for key, _ in node.value:
            if key.tag == _INT and len(key.value) > _LONGEST_KEY:
                raise TextError(f"the number {key.value[:40]} is too large for a key: put it in quotes")
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping

    def _number(self, node: yaml.ScalarNode) -> int | float:
        if len(node.value) > MOST_DIGITS:
            raise TextError(f"a number has more than {MOST_DIGITS:,} digits")
        number: int | float = (self.construct_yaml_int if node.tag == _INT else self.construct_yaml_float)(node)
        return number


BoundedLoader.add_constructor(_INT, BoundedLoader._number)
BoundedLoader.add_constructor(_FLOAT, BoundedLoader._number)


def read_yaml(text: str, loader: type[BoundedLoader] = BoundedLoader) -> tuple[Any, BoundedLoader]:
    """Return the value of a YAML text of one document, and the loader that read it.

    Raises:
        yaml.MarkedYAMLError: it is not YAML, with the place.
        TextError: it is not YAML for another reason, or is beyond a bound.
    """
    try:
        _check_structure(text, loader)
        reader = loader(text)
        try:
            return reader.get_single_data(), reader
        finally:
            reader.dispose()
    except (yaml.MarkedYAMLError, TextError):
        raise
    except yaml.YAMLError as error:
        raise TextError(f"this is not YAML: {str(error).splitlines()[0]}") from error
    # A date such as 2025-13-45, and scalars that their tag does not allow: !!bool x, !!timestamp x, !!int "".
    except (ValueError, ArithmeticError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise TextError(f"this is not usable YAML: {error}") from error


def _check_structure(text: str, loader: type[BoundedLoader]) -> None:
    """Refuse nesting and aliases that would cost too much, before anything is composed.

    Raises:
        TextError: a bound is exceeded; the message gives the bound.
    """
    most = _FREE_VALUES + len(text) // _BYTES_A_VALUE
    anchored: dict[str, tuple[int, int]] = {}  # anchor -> (cost, levels of nesting) of its value
    stack: list[list[Any]] = []  # of open collections: anchor, cost before it, levels in it
    values = cost = 0  # an alias costs the values that it stands for, and their bytes
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before, levels = stack.pop()
            levels += 1
            if anchor is not None:
                anchored[anchor] = (cost - before, levels)
        elif isinstance(event, yaml.ScalarEvent):
            price, levels = 1 + len(event.value) // _BYTES_A_VALUE, 0
            values, cost = values + 1, cost + price
            if event.anchor is not None:
                anchored[event.anchor] = (price, levels)
        elif isinstance(event, yaml.AliasEvent):
            assert event.anchor is not None
            if event.anchor in (entry[0] for entry in stack):
                raise TextError(f"the alias *{event.anchor[:60]} contains itself")
            price, levels = anchored.get(event.anchor, (1, 0))
            values, cost = values + price, cost + price
        elif isinstance(event, yaml.CollectionStartEvent):
            stack.append([event.anchor, cost, 0])
            values, cost, levels = values + 1, cost + 1, 0
        else:
            continue
        if stack:
            stack[-1][2] = max(stack[-1][2], levels)
        if len(stack) + levels > MOST_NESTING:
            raise TextError(_nested())
        if values > most:
            raise TextError(f"the text holds more than {most:,} values, with every alias written out")
