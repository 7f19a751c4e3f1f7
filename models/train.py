#!/usr/bin/env python3
"""Trains the example models and writes their version folders, models/<model>/<version>/.

The output is reproducible: packages are pinned in requirements.txt, and seeds in the modules below.
`--check` compares it with the committed files. README.md describes each file and key.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import diabetes
import digits
import iris
import language
from version import make_version

REPOSITORY = Path(__file__).resolve().parent
VERSIONS = [*iris.VERSIONS, *diabetes.VERSIONS, *digits.VERSIONS, *language.VERSIONS]


def differing_files(trained, committed):
    """The names of the files that are missing, extra or different."""

    def contents(folder):
        return {path.name: path.read_bytes() for path in folder.glob("*")}

    ours, theirs = contents(trained), contents(committed)
    return [name for name in sorted(ours | theirs) if ours.get(name) != theirs.get(name)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if a committed file differs"
    )
    check = parser.parse_args().check

    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        for version in VERSIONS:
            trained, committed = Path(scratch, version.name), REPOSITORY / version.name
            print(f"{version.name}: training")
            make_version(version, trained)
            if not committed.exists() and not check:
                shutil.copytree(trained, committed)
                print(f"  written to models/{version.name}/")
                continue
            differing = differing_files(trained, committed)
            for file in differing:
                print(f"  models/{version.name}/{file} differs from the output of this script")
            if not differing:
                print("  identical to the committed files")
            failed = failed or bool(differing)
    if failed:
        sys.exit("a model version is immutable; revert the change, or add a new version")


if __name__ == "__main__":
    main()
