"""Datasets: those of the real host, and those that its files could form over time."""

from __future__ import annotations

import re
import subprocess
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
from conftest import REPOSITORY, Host, binary

from spinfer import MLClient
from spinfer.dataset import read_dataset, read_feedback, read_predictions

NOON = datetime(2026, 11, 30, 12, tzinfo=timezone.utc)
TIME = pa.timestamp("us", "UTC")


def write_predictions(
    root: Path, name: str, rows: list[dict[str, Any]], *, model: str = "iris", version: str = "1"
) -> None:
    """A file of the host. Its columns are those of `rows`."""
    day = rows[0].get("time", NOON).date().isoformat()
    folder = root / f"predictions/model={quote(model, safe='')}/version={version}/day={day}"
    folder.mkdir(parents=True, exist_ok=True)
    given = [{"time": NOON, **row} for row in rows]
    table = pa.Table.from_pylist(given)
    table = table.set_column(table.column_names.index("time"), "time", table["time"].cast(TIME))
    pq.write_table(table, folder / f"{name}.parquet")


def write_feedback(root: Path, name: str, items: list[dict[str, Any]]) -> None:
    schema = pa.schema(
        [
            ("prediction_id", pa.string()),
            ("row", pa.int64()),
            ("label", pa.string()),
            ("value", pa.float64()),
            ("reward", pa.float64()),
            ("time", TIME),
            ("received", TIME),
        ]
    )
    folder = root / "feedback/day=2026-11-30"
    folder.mkdir(parents=True, exist_ok=True)
    given = [{"row": 0, "received": NOON, **item} for item in items]
    pq.write_table(pa.Table.from_pylist(given, schema), folder / f"{name}.parquet")


def test_dataset_of_the_host_is_read_with_its_feedback(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    host = Host(REPOSITORY / "spin.toml", state)
    try:
        with MLClient(host.url) as client:
            rows = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]
            predictions = client.predict_batch("iris_classifier", rows)
            client.feedback(predictions[1], label="versicolor", time=NOON - timedelta(days=700))
            client.feedback(predictions[1], label="virginica", time=NOON - timedelta(days=400))
    finally:
        host.close()
    dataset = tmp_path / "exported"
    export = [binary(), "log", "export", "--to", dataset, "--state-dir", state]
    subprocess.run(export, check=True, capture_output=True)
    read = read_dataset(dataset, model="iris-classifier", version=1)
    assert read["id"].tolist() == [predictions[0]["prediction_id"]] * 2
    assert read["row"].tolist() == [0, 1]
    assert read["output.prediction"].tolist() == ["setosa", "virginica"]
    assert read["input.sepal_length"].tolist() == [5.1, 6.7]
    assert read["version"].tolist() == ["1", "1"]
    assert read["feedback.label"].isna().tolist() == [True, False]
    assert read["feedback.label"].tolist()[1] == "virginica"
    assert read["feedback.reward"].isna().all()


def test_feedback_that_was_known_last_counts_in_any_order(tmp_path: Path) -> None:
    later, earlier = NOON + timedelta(seconds=1), NOON - timedelta(days=7)
    write_feedback(
        tmp_path,
        "2",
        [
            {"prediction_id": "a", "label": "old", "time": earlier},
            {"prediction_id": "a", "reward": 0.25, "time": NOON},
            {"prediction_id": "b", "label": "b", "time": NOON},
        ],
    )
    write_feedback(
        tmp_path,
        "1",
        [
            {"prediction_id": "a", "label": "new", "time": later},
            {"prediction_id": "a", "reward": 0.5, "time": NOON},
            {"prediction_id": "b", "label": "a", "time": NOON},
            {"prediction_id": "b", "row": 1, "value": 7.0, "time": NOON},
        ],
    )
    read = read_feedback(tmp_path).set_index(["prediction_id", "row"])
    assert read.loc[("a", 0), "label"] == "new"
    assert read.loc[("a", 0), "reward"] == 0.5
    assert read.loc[("b", 0), "label"] == "b", "of the same time, the greater one"
    assert read.loc[("b", 1), "value"] == 7.0
    assert len(read) == 3


def test_documented_query_counts_the_same_feedback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = tmp_path / "exported"
    rows = [{"id": id, "row": 0, "output.prediction": "b"} for id in "vwxyz"]
    write_predictions(dataset, "x", rows)
    later = NOON + timedelta(seconds=1)
    items = [
        # Corrected, corrected in the other order, contradicting at the same time in both orders.
        *[("v", "a", NOON), ("v", "b", later)],
        *[("w", "b", later), ("w", "a", NOON)],
        *[("x", "a", NOON), ("x", "b", NOON)],
        *[("y", "b", NOON), ("y", "a", NOON)],
    ]
    given = [{"prediction_id": id, "label": label, "time": time} for id, label, time in items]
    write_feedback(dataset, "1", [*given, {"prediction_id": "z", "label": "a", "time": NOON}])
    write_feedback(dataset, "2", [{"prediction_id": "z", "reward": 1.0, "time": later}])
    page = (REPOSITORY / "docs/prediction-log.md").read_text()
    (query,) = re.findall(r'duckdb\.sql\("""(.*?)"""\)', page, re.DOTALL)
    ((model, _, accuracy),) = duckdb.sql(query).fetchall()
    read = read_dataset("exported")
    assert (model, accuracy) == ("iris", 0.8)
    assert (read["output.prediction"] == read["feedback.label"]).mean() == accuracy


def test_columns_of_all_files_are_read(tmp_path: Path) -> None:
    write_predictions(tmp_path, "1", [{"id": "a", "row": 0, "output.n": 1}])
    write_predictions(tmp_path, "2", [{"id": "b", "row": 0, "output.n": 0.5, "output.more": "x"}])
    read = read_predictions(tmp_path)
    assert read["output.n"].tolist() == [1.0, 0.5]
    assert read["output.more"].tolist() == [None, "x"]
    read = read_predictions(tmp_path, columns=["output.n"])
    assert list(read) == ["id", "row", "output.n"]
    with pytest.raises(ValueError, match="columns: 'output.m' is none of"):
        read_predictions(tmp_path, columns=["output.m"])


def test_partitions_select_predictions(tmp_path: Path) -> None:
    for number, (model, version) in enumerate([("a b/c", "1"), ("a b/c", "2"), ("d", "1")]):
        for days in (0, 1):
            time = NOON + timedelta(days=days)
            row = {"id": f"{number}{days}", "row": 0, "time": time}
            write_predictions(tmp_path, "x", [row], model=model, version=version)

    def ids(**selected: Any) -> list[str]:
        return list(read_predictions(tmp_path, **selected)["id"])

    assert ids() == ["00", "01", "10", "11", "20", "21"]
    assert ids(model="a b/c") == ["00", "01", "10", "11"]
    assert ids(version="1", last_day="2026-11-30") == ["00", "20"]
    assert ids(model="d", version=1, first_day=date(2026, 12, 1)) == ["21"]
    assert ids(model="e") == []
    assert read_dataset(tmp_path, model="e")["feedback.label"].tolist() == []
    with pytest.raises(ValueError, match="Invalid isoformat"):
        ids(first_day="yesterday")


def test_models_with_columns_of_different_types_are_not_mixed(tmp_path: Path) -> None:
    for model, prediction in [("iris", "setosa"), ("diabetes", 151.5)]:
        row = {"id": model, "row": 0, "output.prediction": prediction}
        write_predictions(tmp_path, "x", [row], model=model)
    with pytest.raises(ValueError, match="read one model and version: model="):
        read_predictions(tmp_path)
    assert read_predictions(tmp_path, model="diabetes")["output.prediction"].tolist() == [151.5]


def test_dataset_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="spinfer log export --to"):
        read_dataset(tmp_path)
    write_predictions(tmp_path, "x", [{"id": "a", "row": 0}])
    # Without feedback.
    assert read_dataset(tmp_path)["feedback.label"].isna().tolist() == [True]


def test_other_file_systems_and_urls_are_read(tmp_path: Path) -> None:
    write_predictions(tmp_path, "x", [{"id": "a", "row": 0}])
    url = tmp_path.as_uri()
    within = pyarrow.fs.SubTreeFileSystem(str(tmp_path.parent), pyarrow.fs.LocalFileSystem())
    for read in (read_dataset(url), read_dataset(tmp_path.name, filesystem=within)):
        assert read["id"].tolist() == ["a"]
