"""Writes the file of cases of make_cases.py."""

import gzip
import json


def write(cases, path):
    """One JSON object per line and case. Names are unique."""
    names = [case["name"] for case in cases]
    assert len(set(names)) == len(names), "names repeat"
    lines = "".join(json.dumps(case, sort_keys=True) + "\n" for case in cases)
    with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as stream:
        stream.write(lines.encode())
    print(f"{len(cases)} cases, {path.stat().st_size} bytes")
