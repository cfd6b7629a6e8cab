"""Reading a mapping from YAML, strictly and with one-line errors."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from plora_cl.config.errors import shown
from plora_cl.errors import SettingsError

MAX_BYTES = 1 << 20
"""Longest file of settings: those of a thousand tasks take a fifth of it."""

_MOST_VALUES = MAX_BYTES // 2  # what a file of that length holds where nothing is referred to


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that takes a key given twice for the mistake it is."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first: dict[tuple[str, str], yaml.Node] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            earlier = first.setdefault((key.tag, key.value), key)
            if earlier is not key:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value} is given twice (before on line "
                    f"{earlier.start_mark.line + 1}); keep one",
                    problem_mark=key.start_mark,
                )
        return super().construct_mapping(node, deep)


def parse(text: str) -> object:
    """Return what a YAML document says.

    Raises:
        ValueError: It is not valid YAML; the message is one line without the source's name.
    """
    loader: yaml.SafeLoader | None = None
    try:
        loader = _StrictLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _expanded_size(node, {})
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"{line}{_one_line(error.problem or error.context)}") from error
    except yaml.YAMLError as error:
        raise ValueError(_one_line(error)) from error
    # A tag on a value that it does not fit, or a number that no machine holds
    except (LookupError, AttributeError, TypeError, ArithmeticError) as error:
        raise ValueError("a value does not fit its YAML tag") from error
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    finally:
        if loader is not None:
            loader.dispose()


def _expanded_size(node: yaml.Node, known: dict[int, int]) -> int:
    """Return the number of values below ``node`` with every alias written out.

    Raises:
        ValueError: They are more than a document may have, or one contains itself.
    """
    if id(node) in known:
        size = known[id(node)]
        if not size:
            raise ValueError(f"line {node.start_mark.line + 1}: a value that contains itself")
        return size
    known[id(node)] = 0
    size = 1
    for child in node.value if isinstance(node, yaml.CollectionNode) else ():
        for part in child if isinstance(child, tuple) else (child,):
            size += _expanded_size(part, known)
            if size > _MOST_VALUES:
                raise ValueError(
                    f"line {node.start_mark.line + 1}: its aliases (*name) expand to more than "
                    f"{_MOST_VALUES} values; write out what is meant"
                )
    known[id(node)] = size
    return size


def parse_mapping(text: str, source: str) -> dict[Any, Any]:
    """Return the mapping that a YAML document holds; an empty document is an empty one.

    Raises:
        SettingsError: It is not valid YAML, or not a mapping.
    """
    try:
        data = parse(text)
    except ValueError as error:
        raise SettingsError([f"{source}: {error}"]) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SettingsError(
            [f"{source}: {shown(data)}; expected a mapping, one `setting: value` a line"]
        )
    return data


def read_mapping(path: Path) -> dict[Any, Any]:
    """Return the mapping in a YAML file.

    Raises:
        SettingsError: The file cannot be read, is too long, not UTF-8 or not a YAML mapping.
    """
    try:
        with path.open("rb") as file:  # it may be a pipe
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise SettingsError([f"{path}: longer than {MAX_BYTES} bytes; expected settings"])
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SettingsError(
            [
                f"{path}: line {line}: not UTF-8 text (byte 0x{error.object[error.start]:02x}); "
                "save the file as UTF-8"
            ]
        ) from error
    except FileNotFoundError as error:
        raise SettingsError([f"{path}: no such file; expected a YAML file"]) from error
    except OSError as error:
        raise SettingsError([f"{path}: cannot be read: {error.strerror}"]) from error
    return parse_mapping(text, str(path))


def _one_line(problem: object) -> str:
    return " ".join(str(problem).split())
