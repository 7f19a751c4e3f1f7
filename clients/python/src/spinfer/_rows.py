"""Rows of features from Python, NumPy or pandas, as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any


def plain(value: Any) -> Any:
    """Converts NumPy and pandas values to lists, dicts, strings and numbers.

    >>> plain((1, 2.5))
    [1, 2.5]
    """
    if value is None or isinstance(value, (str, bool, int, float)):
        # A NumPy float64 is a float; json writes it as one.
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "columns"):
        return plain_table(value)
    if hasattr(value, "index") and hasattr(value, "to_dict"):
        # A pandas Series: a row of a table has the column names.
        named = all(isinstance(key, str) for key in value.index)
        return plain(value.to_dict() if named else value.tolist())
    if hasattr(value, "tolist"):
        return plain_array(value)
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [plain(item) for item in value]
    if hasattr(value, "__float__"):
        return float(value)
    raise TypeError(f"features: expected numbers or strings, got {type(value).__name__}")


def plain_table(table: Any) -> list[Any]:
    """A pandas DataFrame as a dict per row; without column names, a list per row."""
    if not all(isinstance(column, str) for column in table.columns):
        return list(plain(table.to_numpy()))
    return [plain(row) for row in table.to_dict(orient="records")]


def plain_array(array: Any) -> Any:
    """A NumPy array or scalar as lists of numbers and strings."""
    listed = array.tolist()
    # For these types `tolist` returns JSON values.
    return listed if array.dtype.kind in "biufU" else plain(listed)


def to_json(value: Any) -> bytes:
    """Compact JSON. NaN and infinity raise an error with their position."""
    try:
        return json.dumps(
            value, separators=(",", ":"), allow_nan=False, ensure_ascii=False
        ).encode()
    except ValueError:
        where = find_not_finite(value, "")
        if where is None:
            raise
        raise ValueError(
            f"{where}, which JSON does not support; replace the value, or send tensors with infer()"
        ) from None


def find_not_finite(value: Any, where: str) -> str | None:
    """The position of the first NaN or infinity.

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
