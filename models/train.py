#!/usr/bin/env python3
"""Trains the example models and writes their version folders, models/<model>/<version>/.

The packages pinned in requirements.txt and the seeds below give the same bytes every time, which
`--check` proves for the committed files. README.md describes each file and key.
"""

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from reference import infer, make_baseline, make_golden

REPOSITORY = Path(__file__).resolve().parent
MODEL = "iris-classifier"
FIELDS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
LABELS = ["setosa", "versicolor", "virginica"]
SEED = 1
TEST_ROWS = 30

OPSETS = {"": 17, "ai.onnx.ml": 1}
IR_VERSION = 8  # the one that came with opset 17
DATATYPES = {"tensor(float)": "FP32", "tensor(int64)": "INT64"}  # ONNX Runtime -> Open Inference


@dataclass(frozen=True)
class Version:
    number: str
    description: str
    estimator: ClassifierMixin


VERSIONS = [
    Version(
        "1",
        "Iris species from four flower measurements in cm: multinomial logistic regression.",
        LogisticRegression(solver="newton-cholesky", tol=1e-10),
    ),
    Version(
        "2",
        "Iris species from four flower measurements in cm: random forest of 100 trees.",
        RandomForestClassifier(n_estimators=100, random_state=SEED),
    ),
]


def split_iris():
    """Features in cm and class indices: train_x, test_x, train_y, test_y."""
    features, classes = load_iris(return_X_y=True)
    return train_test_split(
        features, classes, test_size=TEST_ROWS, random_state=SEED, stratify=classes
    )


def fit(estimator, features, classes):
    estimator.fit(features, classes)
    if isinstance(estimator, LogisticRegression):
        # The last digits differ between BLAS kernels, hence between CPUs; the model must not.
        estimator.coef_ = estimator.coef_.round(6)
        estimator.intercept_ = estimator.intercept_.round(6)


def to_onnx(version):
    """The fitted estimator as a graph: `features` -> `label`, `probabilities`."""
    graph = convert_sklearn(
        version.estimator,
        name=MODEL,
        doc_string=version.description,
        initial_types=[("features", FloatTensorType([None, len(FIELDS)]))],
        options={"zipmap": False},
        target_opset=OPSETS,
    )
    graph.producer_name = "spinfer models/train.py"
    graph.producer_version = ""
    graph.domain = ""
    graph.model_version = int(version.number)
    graph.ir_version = IR_VERSION
    del graph.opset_import[:]  # skl2onnx lists the default domain twice
    graph.opset_import.extend(onnx.helper.make_opsetid(*opset) for opset in OPSETS.items())
    onnx.checker.check_model(graph, full_check=True)
    return graph


def open_session(graph_bytes):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the order of sums, hence their last bit, stays the same
    return onnxruntime.InferenceSession(graph_bytes, options, providers=["CPUExecutionProvider"])


def to_json(value, expand, indent=""):
    """JSON with sorted keys: the outer `expand` levels over several lines, the rest on one."""
    if expand == 0 or not isinstance(value, (dict, list)):
        return json.dumps(value, sort_keys=True, allow_nan=False)
    inner = indent + "  "
    if isinstance(value, dict):
        items = [f"{json.dumps(k)}: {to_json(value[k], expand - 1, inner)}" for k in sorted(value)]
    else:
        items = [to_json(item, expand - 1, inner) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return opening + "\n" + ",\n".join(inner + item for item in items) + f"\n{indent}{closing}"


def toml_table(header, **entries):
    """A TOML table; strings, numbers and flat lists are written as in JSON."""
    lines = [header] if header else []
    return "\n".join(lines + [f"{key} = {json.dumps(value)}" for key, value in entries.items()])


def tensor_table(header, tensor, **extra):
    shape = [axis if isinstance(axis, int) else -1 for axis in tensor.shape]
    datatype = DATATYPES[tensor.type]
    return toml_table(header, name=tensor.name, datatype=datatype, shape=shape, **extra)


def make_model_toml(version, session, sha256, test_accuracy):
    model = {"name": MODEL, "version": version.number, "description": version.description}
    provenance = {
        "script": "models/train.py",
        "dataset": "iris (Fisher 1936) as in scikit-learn: 150 rows, of them "
        f"{150 - TEST_ROWS} train and {TEST_ROWS} test, stratified, split seed {SEED}",
        "estimator": repr(version.estimator),
        "framework": f"scikit-learn {installed('scikit-learn')}",
        "converter": f"skl2onnx {installed('skl2onnx')}",
    }
    tables = [
        toml_table("", **model, sha256=sha256, labels=LABELS),
        *(tensor_table("[[inputs]]", tensor, fields=FIELDS) for tensor in session.get_inputs()),
        *(tensor_table("[[outputs]]", tensor) for tensor in session.get_outputs()),
        toml_table("[provenance]", **provenance),
        toml_table("[provenance.metrics]", test_accuracy=test_accuracy),
    ]
    return "\n\n".join(tables) + "\n"


def make_version(version, folder):
    """Trains one version and writes its four files."""
    train_x, test_x, train_y, test_y = split_iris()
    fit(version.estimator, train_x, train_y)
    graph = to_onnx(version)
    graph_bytes = graph.SerializeToString(deterministic=True)
    sha256 = hashlib.sha256(graph_bytes).hexdigest()
    session = open_session(graph_bytes)
    hits = infer(session, test_x.astype(np.float32))["label"] == test_y
    test_accuracy = round(float(hits.mean()), 4)

    named = {"model": MODEL, "version": version.number}
    baseline = named | make_baseline(session, train_x.astype(np.float32), FIELDS, len(LABELS))
    produced_by = {"produced_by": f"onnxruntime {installed('onnxruntime')}"}
    golden = named | produced_by | make_golden(session, graph, test_x)

    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(graph_bytes)
    (folder / "model.toml").write_text(make_model_toml(version, session, sha256, test_accuracy))
    (folder / "baseline.json").write_text(to_json(baseline, expand=3) + "\n")
    (folder / "golden.json").write_text(to_json(golden, expand=2) + "\n")
    print(f"  {len(graph_bytes)} bytes, test accuracy {test_accuracy}, sha256 {sha256[:12]}...")


def differing_files(made, committed):
    """Names of the files that are missing, extra or not the same byte for byte."""

    def contents(folder):
        return {path.name: path.read_bytes() for path in folder.glob("*")}

    ours, theirs = contents(made), contents(committed)
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
            name = f"{MODEL}/{version.number}"
            made, committed = Path(scratch, name), REPOSITORY / name
            print(f"{name}: training")
            make_version(version, made)
            if not committed.exists() and not check:
                shutil.copytree(made, committed)
                print(f"  written to models/{name}/")
                continue
            differing = differing_files(made, committed)
            for file in differing:
                print(f"  models/{name}/{file} is not what this script makes")
            if not differing:
                print("  same as committed")
            failed = failed or bool(differing)
    if failed:
        sys.exit("a model version is immutable: undo the change, or make it a new version")


if __name__ == "__main__":
    main()
