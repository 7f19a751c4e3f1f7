"""Feedback files: what is sent, and the lines that are rejected here or by the host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Make
from peer import Peer, serving

from spinfer import BadRequest, ServerError

ID = "01936d00-0000-7000-8000-000000000000"
NOTHING = {"accepted": 0, "unknown": 0, "replaced": 0, "unchanged": 0, "rejected": []}


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def accepted(count: int, *rejected: dict[str, Any]) -> tuple[int, dict[str, Any], Any]:
    counts = {"accepted": count, "unknown": 0, "replaced": 1, "unchanged": 2}
    return (200, {}, {**counts, "rejected": list(rejected)})


def sent(peer: Peer) -> list[list[Any]]:
    return [json.loads(body)["feedback"] for *_, body in peer.requests]


def test_csv_file_is_sent_with_the_types_of_its_columns(make: Make, tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "labels.csv",
        "\ufeffprediction_id, row,label,value,time\r\n"
        'a,2,3,,2026-11-30T12:00:00Z\r\n\r\nb,,"two\nlines",,\r\nc,0,,-1.5e3,\r\n',
    )
    with serving(accepted(3)) as peer:
        total = make(peer.url).feedback_file(file)
    assert total == {"accepted": 3, "unknown": 0, "replaced": 1, "unchanged": 2, "rejected": []}
    assert sent(peer) == [
        [
            {"prediction_id": "a", "row": 2, "label": "3", "time": "2026-11-30T12:00:00Z"},
            {"prediction_id": "b", "label": "two\nlines"},
            {"prediction_id": "c", "row": 0, "value": -1500.0},
        ]
    ]


def test_json_lines_are_sent_without_their_nulls(make: Make, tmp_path: Path) -> None:
    lines = [
        '{"prediction_id": "a", "label": 3, "row": null}',
        "",
        '{"reward": 1, "prediction_id": "b"}',
    ]
    with serving(accepted(2)) as peer:
        make(peer.url).feedback_file(written(tmp_path, "labels.ndjson", "\n".join(lines)))
    assert sent(peer) == [
        [{"prediction_id": "a", "label": 3}, {"reward": 1, "prediction_id": "b"}]
    ]


def test_rejected_lines_have_their_numbers(make: Make, tmp_path: Path) -> None:
    csv = written(
        tmp_path,
        "labels.csv",
        b'prediction_id,row,value,label\n,0,1,\nb,x,1,\nc,0,"1\n",\nd,0,nan,\ne,0,1\n'
        b"f,0,1,a\ng,0,,\xff\nh,0,1_0,\ni,0,1,\n",
    )
    with serving(accepted(1, {"index": 1, "error": "no"})) as peer:
        total = make(peer.url).feedback_file(csv)
    assert [item["prediction_id"] for item in sent(peer)[0]] == ["c", "i"]
    assert total["accepted"] == 1
    assert [(one["line"], one["error"]) for one in total["rejected"]] == [
        (2, "prediction_id is missing"),
        (3, "row: 'x' is not a row"),
        (6, "value: 'nan' is not a number"),
        (7, "has 3 cells; the header line has 4"),
        (8, "expected exactly one of label, value and reward"),
        (9, "is not UTF-8"),
        (10, "value: '1_0' is not a number"),
        (11, "no"),
    ]
    lines = b'[]\n{"label": NaN, "prediction_id": "a"}\n{\n{"a": 1, "a": 2}\n\xff\n'
    total = make("http://127.0.0.1:1").feedback_file(written(tmp_path, "x.jsonl", lines))
    assert [one["line"] for one in total["rejected"]] == [1, 2, 3, 4, 5]
    assert "a key is there twice" in total["rejected"][3]["error"]


def test_large_file_is_several_requests(make: Make, tmp_path: Path) -> None:
    header = "prediction_id,reward\n"
    file = written(tmp_path, "rewards.csv", header + "".join(f"{n},1\n" for n in range(25_000)))
    responses = [
        accepted(9_999, {"index": 9_999, "error": "no"}),
        accepted(10_000),
        accepted(4_999, {"index": 0, "error": "no"}),
    ]
    with serving(*responses) as peer:
        total = make(peer.url).feedback_file(file)
    assert [len(batch) for batch in sent(peer)] == [10_000, 10_000, 5_000]
    assert total["accepted"] == 24_998
    assert total["replaced"] == 3 and total["unchanged"] == 6
    assert [one["line"] for one in total["rejected"]] == [10_001, 20_002]


def test_request_whose_items_are_all_rejected_is_a_result(make: Make, tmp_path: Path) -> None:
    file = written(tmp_path, "labels.csv", "prediction_id,label\na,b\n")
    refused = {"error": "every item is rejected", "rejected": [{"index": 0, "error": "no"}]}
    with serving((400, {}, refused)) as peer:
        total = make(peer.url).feedback_file(file)
    assert total == {**NOTHING, "rejected": [{"line": 2, "error": "no"}]}
    for status, body, error in [
        (400, {"error": "no"}, BadRequest),
        (400, b"<html>", BadRequest),
        (503, {"error": "no log"}, ServerError),
    ]:
        with serving((status, {}, body)) as peer, pytest.raises(error):
            make(peer.url).feedback_file(file)


def test_file_that_cannot_be_read_is_an_error(make: Make, tmp_path: Path) -> None:
    client = make("http://127.0.0.1:1")
    for name, content, message in [
        ("labels", "", "labels: pass format='csv' or format='jsonl'"),
        ("a.csv", "", "a.csv: line 1: expected prediction_id and one of label"),
        ("a.csv", "prediction_id,lable\n", "line 1: 'lable' is not a column"),
        ("a.csv", "prediction_id,label,label\n", "line 1: a column is there twice"),
        ("a.csv", "label\n", "line 1: expected prediction_id"),
    ]:
        with pytest.raises(ValueError, match=message):
            client.feedback_file(written(tmp_path, name, content))
    with pytest.raises(FileNotFoundError):
        client.feedback_file(tmp_path / "none.csv")
    empty = written(tmp_path, "b.csv", "prediction_id,label\n")
    assert client.feedback_file(empty) == NOTHING


def test_host_stores_a_file(client: Any, tmp_path: Path) -> None:
    prediction = client.predict("iris_classifier", [5.1, 3.5, 1.4, 0.2])
    rows = f"{prediction['prediction_id']},setosa\n{ID},setosa\nno uuid,setosa\n"
    file = written(tmp_path, "labels.csv", "prediction_id,label\n" + rows)
    total = client.feedback_file(file)
    assert (total["accepted"], total["unknown"]) == (2, 1)
    (rejected,) = total["rejected"]
    assert rejected["line"] == 4 and "no uuid" in rejected["error"]
