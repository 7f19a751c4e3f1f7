"""Reference data: for the estimator, and as float32 for the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spinfer.model_trainer._errors import ExportError


@dataclass(frozen=True)
class Table:
    """Rows of features.

    Attributes:
        own: the original data, for the estimator.
        rows: the data as a float32 array with two axes; NaN is a missing value.
        fields: feature names; empty without names.
    """

    own: Any
    rows: npt.NDArray[np.float32]
    fields: list[str]


def read(x: Any, fields: Sequence[str] | None, fitted_on: Sequence[str] | None) -> Table:
    """Reads a pandas DataFrame, an array, or rows.

    Args:
        x: the data.
        fields: feature names that override those of the data.
        fitted_on: feature names that the estimator was fitted with, if any.
    """
    named = None
    if hasattr(x, "columns"):
        if fitted_on is not None and set(fitted_on) <= set(x.columns):
            x = x[list(fitted_on)]
        named = [str(column) for column in x.columns]
        columns = [number_column(name, x[column]) for name, column in zip(named, x.columns)]
        wide = np.stack(columns, axis=1) if columns else np.empty((len(x), 0))
    else:
        try:
            wide = np.asarray(x, np.float64)
        except (TypeError, ValueError) as problem:
            raise ExportError(f"X: expected numbers: {problem}") from None
    if wide.ndim != 2 or 0 in wide.shape:
        raise ExportError(f"X: expected rows of features, got the shape {list(wide.shape)}")
    with np.errstate(over="ignore"):
        rows = wide.astype(np.float32)
    if np.isinf(rows).any():
        row, column = np.argwhere(np.isinf(rows))[0]
        raise ExportError(f"X: row {row}, column {column} is out of range for float32")
    names = list(fields) if fields is not None else named or list(fitted_on or [])
    if names and len(names) != rows.shape[1]:
        raise ExportError(f"fields: expected {rows.shape[1]} names, got {len(names)}")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ExportError(f"fields: duplicate name {twice!r}")
    return Table(x, rows, names)


def number_column(name: str, column: Any) -> npt.NDArray[np.float64]:
    """A column of a DataFrame as numbers, with NaN for missing values."""
    try:
        if column.dtype.kind not in "biuf":
            raise TypeError
        return np.asarray(column.to_numpy(np.float64, na_value=np.nan))
    except Exception:
        raise ExportError(
            f"X: column {name!r} is not numeric ({column.dtype}); models take float32: encode the "
            "column before fitting, and send the encoded values in requests"
        ) from None
