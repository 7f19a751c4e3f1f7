"""Rows of features, as Python, NumPy or pandas have them, as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any


def plain(value: Any) -> Any:
    """Lists, dicts, strings and numbers in place of what NumPy and pandas have.

    >>> plain((1, 2.5))
    [1, 2.5]
    """
    if value is None or isinstance(value, (str, bool, int, float)):
        # A NumPy float64 is a float, and json would write it as one.
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "columns"):
        return plain_table(value)
    if hasattr(value, "index") and hasattr(value, "to_dict"):
        # A pandas Series: a row of a table has the columns' names.
        named = all(isinstance(key, str) for key in value.index)
        return plain(value.to_dict() if named else value.tolist())
    if hasattr(value, "tolist"):
        return plain_array(value)
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [plain(item) for item in value]
    if hasattr(value, "__float__"):
        return float(value)
    raise TypeError(f"{type(value).__name__} is not a feature: expected a number or a string")


def plain_table(table: Any) -> list[Any]:
    """A DataFrame of pandas: a dict for each row; where columns have no names, a list."""
    if not all(isinstance(column, str) for column in table.columns):
        return list(plain(table.to_numpy()))
    return [plain(row) for row in table.to_dict(orient="records")]


def plain_array(array: Any) -> Any:
    """A NumPy array or scalar as lists of numbers and strings."""
    listed = array.tolist()
    # Of these types `tolist` gives what JSON has.
    return listed if array.dtype.kind in "biufU" else plain(listed)


def to_json(value: Any) -> bytes:
    """JSON in the fewest bytes. A number that JSON does not have is refused by its position."""
    try:
        return json.dumps(
            value, separators=(",", ":"), allow_nan=False, ensure_ascii=False
        ).encode()
    except ValueError:
        where = find_not_finite(value, "")
        if where is None:
            raise
        raise ValueError(
            f"{where}, which JSON cannot carry; replace it, or send tensors by infer()"
        ) from None


def find_not_finite(value: Any, where: str) -> str | None:
    """Where the first NaN or infinity is.

    >>> find_not_finite({"features": [1.0, float("nan")]}, "")
    'features[1] is nan'
    """
    if isinstance(value, float) and not math.isfinite(value):
        return f"{where or 'the value'} is {value}"
    items: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        items = ((f"{where}.{key}" if where else key, item) for key, item in value.items())
    elif isinstance(value, list):
        items = ((f"{where}[{index}]", item) for index, item in enumerate(value))
    found = (find_not_finite(item, key) for key, item in items)
    return next((problem for problem in found if problem is not None), None)
