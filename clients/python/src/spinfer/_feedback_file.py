"""Feedback files: CSV with a header line, or JSON lines, as `spinfer log feedback` reads them."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

from spinfer._feedback import (
    KINDS,
    PATH,
    FeedbackSummary,
    bodies,
    no_feedback,
    rejected_items,
    summary,
)
from spinfer._rows import to_json
from spinfer._wire import (
    JSON,
    Call,
    Conversation,
    Request,
    RetryPolicy,
    exchange,
    read,
)

COLUMNS = ("prediction_id", "row", "label", "value", "reward", "time")
# Maximum bytes of an item; the server's limit for a label is 1 KiB.
MAX_ITEM = 64 << 10


class RejectedLine(TypedDict):
    """A line that was rejected: its number in the file, from 1, and the reason."""

    line: int
    error: str


class FeedbackFileSummary(TypedDict):
    """The result of sending a feedback file: a plain dict.

    Attributes:
        accepted: number of stored items.
        unknown: stored items whose prediction is not in the log, or not yet.
        replaced: stored items that replaced other feedback, which they contradict.
        unchanged: stored items that changed nothing: the log has the same feedback, or a later one.
        rejected: the rejected lines.
    """

    accepted: int
    unknown: int
    replaced: int
    unchanged: int
    rejected: list[RejectedLine]


# A line number, and the item of the line, or what is wrong with it.
Line = tuple[int, "dict[str, Any] | str"]


def format_of(path: str | os.PathLike[str], format: str | None) -> str:
    """The format of a file, by its extension unless it is given.

    >>> format_of("labels.csv", None), format_of("labels.ndjson", None), format_of("a", "csv")
    ('csv', 'jsonl', 'csv')
    """
    of_suffix = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
    found = format or of_suffix.get(Path(path).suffix)
    if found not in ("csv", "jsonl"):
        raise ValueError(f"feedback_file: {os.fspath(path)}: pass format='csv' or format='jsonl'")
    return found


def csv_lines(file: Iterable[str]) -> Iterator[Line]:
    """The lines of a CSV file. An empty cell is absent.

    >>> list(csv_lines(["prediction_id,row,value\\n", "a,2,1.5\\n", "b,,x\\n"]))[0]
    (2, {'prediction_id': 'a', 'row': 2, 'value': 1.5})
    """
    reader = csv.reader(file)
    columns = [name.strip() for name in next(reader, [])]
    unknown = [name for name in columns if name not in COLUMNS]
    if unknown:
        raise csv.Error(f"line 1: {unknown[0]!r} is not a column; expected some of {COLUMNS}")
    if len(set(columns)) < len(columns):
        raise csv.Error("line 1: a column is there twice")
    if "prediction_id" not in columns or not set(columns) & set(KINDS):
        raise csv.Error("line 1: expected prediction_id and one of label, value and reward")
    end = reader.line_num
    for cells in reader:
        # A cell in quotes may have line breaks.
        number, end = end + 1, reader.line_num
        if not any(cells):
            continue
        if len(cells) != len(columns):
            yield number, f"has {len(cells)} cells; the header line has {len(columns)}"
            continue
        texts = {column: cell.strip() for column, cell in zip(columns, cells)}
        try:
            yield number, {name: cell_value(name, text) for name, text in texts.items() if text}
        except ValueError as problem:
            yield number, str(problem)


def cell_value(column: str, text: str) -> str | int | float:
    """The value of a cell.

    >>> cell_value("row", "2"), cell_value("value", "-1e3"), cell_value("label", "3")
    (2, -1000.0, '3')
    """
    if column == "row":
        if not (text.isascii() and text.isdigit()):
            raise ValueError(f"row: {text!r} is not a row")
        return int(text)
    if column in ("value", "reward"):
        try:
            number = math.nan if "_" in text else float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{column}: {text!r} is not a number")
        return number
    return text


def json_lines(file: Iterable[bytes]) -> Iterator[Line]:
    """The lines of a file of JSON lines; blank ones are left out.

    >>> list(json_lines([b'{"prediction_id": "a", "label": "b"}', b"", b"[]"]))[1]
    (3, 'is not a JSON object')
    """
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line, object_pairs_hook=unique)
        except (RecursionError, ValueError) as problem:
            yield number, f"is not a JSON object: {problem}"
            continue
        yield number, item if isinstance(item, dict) else "is not a JSON object"


def unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without a repeated key."""
    found = dict(members)
    if len(found) < len(members):
        raise ValueError("a key is there twice")
    return found


def lines_of(file: BinaryIO, format: str) -> Iterator[Line]:
    """The lines of an open file."""
    if format == "jsonl":
        return json_lines(file)
    # Bytes that are not UTF-8 are found when their item is encoded.
    lines = (line.decode("utf-8", "surrogateescape") for line in file)
    first = next(lines, "").removeprefix("\ufeff")
    return csv_lines(part for all in ([first], lines) for part in all)


def encoded(item: Mapping[str, Any]) -> bytes:
    """An item as JSON; raises a ``ValueError`` if the server would reject it."""
    given = {name: of for name, of in item.items() if of is not None}
    if not given.get("prediction_id"):
        raise ValueError("prediction_id is missing")
    if len(given.keys() & set(KINDS)) != 1:
        raise ValueError("expected exactly one of label, value and reward")
    try:
        body = to_json(given)
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8") from None
    if len(body) > MAX_ITEM:
        raise ValueError(f"is longer than {MAX_ITEM} bytes")
    return body


def feedback_file_conversation(
    path: str | os.PathLike[str],
    format: str | None,
    headers: Mapping[str, str],
    policy: RetryPolicy,
) -> Conversation[FeedbackFileSummary]:
    """Sends a file in as few requests as the server's limits allow, without holding all of it."""
    found = format_of(path, format)
    total: FeedbackFileSummary = {
        "accepted": 0,
        "unknown": 0,
        "replaced": 0,
        "unchanged": 0,
        "rejected": [],
    }
    # The lines of the items that are not sent yet.
    numbers: list[int] = []

    def reject(line: int, error: str) -> None:
        total["rejected"].append({"line": line, "error": error})

    def items(lines: Iterator[Line]) -> Iterator[bytes]:
        for number, item in lines:
            try:
                if isinstance(item, str):
                    raise ValueError(item)
                body = encoded(item)
            except ValueError as problem:
                reject(number, str(problem))
                continue
            numbers.append(number)
            yield body

    with open(path, "rb") as file:
        try:
            for count, body in bodies(items(lines_of(file, found))):
                if count == 0:
                    break
                request = Request("POST", PATH, {**headers, "content-type": JSON}, body)
                of_batch = yield from send(request, policy)
                total["accepted"] += of_batch["accepted"]
                total["unknown"] += of_batch["unknown"]
                total["replaced"] += of_batch["replaced"]
                total["unchanged"] += of_batch["unchanged"]
                for rejected in of_batch["rejected"]:
                    index = rejected["index"] if rejected["index"] in range(count) else 0
                    reject(numbers[index], rejected["error"])
                del numbers[:count]
        except csv.Error as problem:
            raise ValueError(f"feedback_file: {os.fspath(path)}: {problem}") from None
    total["rejected"].sort(key=lambda rejected: rejected["line"])
    return total


def send(request: Request, policy: RetryPolicy) -> Conversation[FeedbackSummary]:
    """Sends one request. That all of its items are rejected is a result, not an error."""
    response = yield from exchange(request, policy)
    if response.status == 400:
        body = json_or_none(response.body)
        rejected = rejected_items(response, body) if isinstance(body, dict) else []
        if rejected:
            return {**no_feedback(), "rejected": rejected}
    return read(Call(request, summary), response)


def json_or_none(body: bytes) -> Any:
    """A value in JSON; ``None`` for another body, as proxies send it."""
    try:
        return json.loads(body)
    except (RecursionError, ValueError):
        return None
