"""docs/python.md: the examples run, and print the documented output."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
from conftest import REPOSITORY

from spinfer import MLClient, ModelNotFound

PAGE = REPOSITORY / "docs/python.md"
EXAMPLE = re.compile(
    r"(?:<!-- test: (\w+) -->\n)?```python\n(.*?)```\n(?:```text\n(.*?)```\n)?", re.DOTALL
)
DEFAULT_URL = "http://127.0.0.1:3000"


def test_examples_print_the_documented_output(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text()
    examples = EXAMPLE.findall(text)
    assert len(examples) == text.count("```python") > 8
    without = set()
    with MLClient(host) as client:
        try:
            client.feedback("01936d00-0000-7000-8000-000000000000", reward=0)
        except ModelNotFound:
            without.add("feedback")
        if not client.ready("iris"):
            without.add("experiment")
    names: dict[str, object] = {}
    for needs, code, expected in examples:
        if needs in without:
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code.replace(DEFAULT_URL, host), str(PAGE), "exec"), names)
        assert printed.getvalue() == expected, code
    names["client"].close()  # type: ignore[attr-defined]
