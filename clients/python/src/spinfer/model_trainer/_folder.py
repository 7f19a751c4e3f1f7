"""A version folder: the text of its files, and writing it atomically."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spinfer.model_trainer._errors import ExportError

# A model's name is a part of a component id, and has its syntax.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(-[A-Za-z0-9]+)*")
# Characters that TOML strings must escape, and JSON strings need not.
DELETE = {"\x7f": "\\u007f"}


def check_name(name: str) -> None:
    """Raises an error for an invalid model name, with a proposal."""
    # Words in names of the manifest have one case.
    words = name.split("-")
    if NAME.fullmatch(name) and all(word in (word.lower(), word.upper()) for word in words):
        return
    proposed = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()
    proposed = proposed if NAME.fullmatch(proposed) else "iris-classifier"
    raise ExportError(
        f"name: {name!r} is invalid: a model name has words of letters and digits, separated by "
        f"hyphens, and starts with a letter; try {proposed!r}"
    )


def choose_version(models: Path, version: int | str | None) -> str:
    """The requested version, which must not exist, or the next one."""
    numbers = [int(path.name) for path in models.glob("*") if re.fullmatch("[0-9]+", path.name)]
    following = str(max(numbers, default=0) + 1)
    if version is None:
        return following
    if not re.fullmatch("[1-9][0-9]*", str(version)):
        raise ExportError(f"version: expected a number of at least 1, got {version!r}")
    if (models / str(version)).exists():
        raise ExportError(
            f"{models / str(version)} exists, and a version is never overwritten; remove version= "
            f"to export version {following}"
        )
    return str(version)


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes a folder with its files, atomically."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Not a number, so that it is never taken for a version.
    unfinished = folder.parent / f".{folder.name}-{uuid.uuid4().hex}"
    unfinished.mkdir()
    try:
        for name, content in files.items():
            with open(unfinished / name, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if folder.exists():
            raise FileExistsError(folder)
        unfinished.rename(folder)
    except OSError as problem:
        if folder.exists():
            raise ExportError(
                f"{folder} was created meanwhile, and a version is never overwritten"
            ) from None
        raise ExportError(f"{folder}: {problem}") from problem
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def to_json(value: Any, expand: int, indent: str = "") -> str:
    """JSON with sorted keys: the outer ``expand`` levels over several lines, the rest on one.

    >>> print(to_json({"b": [1, 2], "a": {}}, expand=1))
    {
      "a": {},
      "b": [1, 2]
    }
    """
    if expand == 0 or not isinstance(value, (dict, list)) or not value:
        return json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False)
    inner = indent + "  "
    if isinstance(value, dict):
        items = [
            f"{quoted(key)}: {to_json(value[key], expand - 1, inner)}" for key in sorted(value)
        ]
    else:
        items = [to_json(item, expand - 1, inner) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return opening + "\n" + ",\n".join(inner + item for item in items) + f"\n{indent}{closing}"


def quoted(text: str) -> str:
    """A JSON string."""
    return json.dumps(text, ensure_ascii=False)


def toml_table(header: str, entries: Mapping[str, Any]) -> str:
    """A TOML table. Strings, numbers and flat lists are written as in JSON.

    >>> print(toml_table("[[inputs]]", {"name": "x", "shape": [-1, 4]}))
    [[inputs]]
    name = "x"
    shape = [-1, 4]
    """
    lines = [header] if header else []
    lines += [f"{toml_key(key)} = {toml_value(value)}" for key, value in entries.items()]
    return "\n".join(lines)


def toml_key(key: str) -> str:
    """A TOML key, quoted if necessary."""
    return key if re.fullmatch("[A-Za-z0-9_-]+", key) else toml_value(key)


def toml_value(value: Any) -> str:
    """A TOML value."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return "".join(DELETE.get(character, character) for character in text)
