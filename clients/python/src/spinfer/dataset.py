"""Reads the datasets that ``spinfer log export --to`` writes, as pandas DataFrames.

Needs ``pip install 'spinfer[dataset]'``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

try:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.dataset as pads
    import pyarrow.fs as pafs
except ImportError as missing:
    raise ImportError(
        f"spinfer.dataset needs {missing.name}: pip install 'spinfer[dataset]'"
    ) from None

__all__ = ["read_dataset", "read_feedback", "read_predictions"]

KINDS = ("label", "value", "reward")
KEY = ["prediction_id", "row"]


def read_dataset(
    path: str | os.PathLike[str],
    *,
    model: str | None = None,
    version: str | int | None = None,
    first_day: date | str | None = None,
    last_day: date | str | None = None,
    columns: Sequence[str] | None = None,
    filesystem: Any = None,
) -> pd.DataFrame:
    """Predictions with their feedback.

    Args:
        path: folder or URL of the dataset, such as ``s3://bucket/prefix``.
        model: this model only. Models whose columns have different types cannot be read at once.
        version: this version only.
        first_day: no predictions before this day, in UTC: a date, or ``"2026-11-30"``.
        last_day: no predictions after this day.
        columns: these columns only, and ``id`` and ``row``; default: all.
        filesystem: a ``pyarrow.fs.FileSystem`` for ``path``.

    Returns:
        A row per prediction with the columns of the dataset, and ``feedback.label``,
        ``feedback.value`` and ``feedback.reward``, as in an export to a single file.
    """
    predictions = read_predictions(
        path,
        model=model,
        version=version,
        first_day=first_day,
        last_day=last_day,
        columns=columns,
        filesystem=filesystem,
    )
    feedback = read_feedback(path, filesystem=filesystem)
    feedback = feedback.rename(columns={kind: f"feedback.{kind}" for kind in KINDS})
    feedback = feedback.rename(columns={"prediction_id": "id"})
    return predictions.merge(feedback, how="left", on=["id", "row"])


def read_predictions(
    path: str | os.PathLike[str],
    *,
    model: str | None = None,
    version: str | int | None = None,
    first_day: date | str | None = None,
    last_day: date | str | None = None,
    columns: Sequence[str] | None = None,
    filesystem: Any = None,
) -> pd.DataFrame:
    """Predictions without feedback, ordered by id and row: see :func:`read_dataset`."""
    filters = [
        pads.field(name) == str(wanted)
        for name, wanted in (("model", model), ("version", version))
        if wanted is not None
    ]
    if first_day is not None:
        filters.append(pads.field("day") >= day_of(first_day))
    if last_day is not None:
        filters.append(pads.field("day") <= day_of(last_day))
    table = read_table(path, "predictions", ["model", "version", "day"], filters, filesystem)
    if table is None:
        raise FileNotFoundError(
            f"{os.fspath(path)} has no predictions; write the dataset with "
            f"`spinfer log export --to {os.fspath(path)}`"
        )
    if columns is not None:
        unknown = sorted(set(columns) - set(table.column_names))
        if unknown:
            raise ValueError(f"columns: {unknown[0]!r} is none of {table.column_names}")
        table = table.select(list(dict.fromkeys(["id", "row", *columns])))
    return table.sort_by([("id", "ascending"), ("row", "ascending")]).to_pandas()


def read_feedback(path: str | os.PathLike[str], *, filesystem: Any = None) -> pd.DataFrame:
    """The feedback that counts, as in the log: of each kind the one that was known last.

    Of several with the same time it is the greatest.

    Returns:
        A row per prediction and row with the columns ``prediction_id``, ``row``, ``label``,
        ``value`` and ``reward``.
    """
    table = read_table(path, "feedback", ["day"], [], filesystem)
    if table is None:
        return pd.DataFrame(columns=[*KEY, *KINDS]).astype(
            {"prediction_id": "object", "row": "int64", "value": "float64", "reward": "float64"}
        )
    items = table.select([*KEY, *KINDS, "time"]).to_pandas()
    latest = []
    for kind in KINDS:
        of_kind = items[items[kind].notna()].sort_values([*KEY, "time", kind])
        latest.append(of_kind.drop_duplicates(KEY, keep="last").set_index(KEY)[kind])
    return pd.concat(latest, axis=1).sort_index().reset_index()


def day_of(day: date | str) -> str:
    """A day as written in the names of folders.

    >>> day_of("2026-11-30"), day_of(date(2026, 1, 2))
    ('2026-11-30', '2026-01-02')
    """
    return (date.fromisoformat(day) if isinstance(day, str) else day).isoformat()[:10]


def read_table(
    path: str | os.PathLike[str],
    name: str,
    partitions: Iterable[str],
    filters: list[Any],
    filesystem: Any,
) -> Any:
    """A table of the dataset, with the columns of all of its files; ``None`` if it has no file."""
    if filesystem is None:
        filesystem, root = filesystem_of(path)
    else:
        root = os.fspath(path)
    folder = f"{root.rstrip('/')}/{name}"
    if filesystem.get_file_info(folder).type != pafs.FileType.Directory:
        return None
    # Without a schema, a version would become a number.
    partitioning = pads.partitioning(
        pa.schema([(partition, pa.string()) for partition in partitions]), flavor="hive"
    )
    settings = {"filesystem": filesystem, "format": "parquet", "partitioning": partitioning}
    found = pads.dataset(folder, **settings)
    condition = None
    for one in filters:
        condition = one if condition is None else condition & one
    files = list(found.get_fragments(condition))
    if not files:
        return found.schema.empty_table() if found.files else None
    try:
        # The outputs may differ between the requests of a model.
        schema = pa.unify_schemas(
            [*(file.physical_schema for file in files), partitioning.schema],
            promote_options="permissive",
        )
    except pa.ArrowTypeError as problem:
        raise ValueError(
            f"{folder}: a column has different types ({problem}); read one model and version: "
            "model=..., version=..."
        ) from None
    return pads.dataset(folder, schema=schema, **settings).to_table(filter=condition)


def filesystem_of(path: str | os.PathLike[str]) -> tuple[Any, str]:
    """The file system of a path or URL, and the path in it."""
    text = os.fspath(path)
    if "://" in text:
        filesystem, root = pafs.FileSystem.from_uri(text)
        return filesystem, root
    return pafs.LocalFileSystem(), str(Path(text).absolute())
