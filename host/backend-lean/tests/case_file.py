"""The files of cases that make_cases.py and make_ml_cases.py write."""

import gzip
import json


def write(cases, path):
    """A case is a JSON object a line, under a name of its own."""
    names = [case["name"] for case in cases]
    assert len(set(names)) == len(names), "names repeat"
    lines = "".join(json.dumps(case, sort_keys=True) + "\n" for case in cases)
    with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as stream:
        stream.write(lines.encode())
    print(f"{len(cases)} cases, {path.stat().st_size} bytes")
