"""Export of estimators, and predictions of the real host from the exported models."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import tomllib
from conftest import COMPONENTS, REPOSITORY
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.datasets import load_diabetes, load_iris, load_wine
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from spinfer import MLClient, model_trainer
from spinfer.model_trainer import DisagreementWarning, ExportError
from spinfer.model_trainer._baseline import shortest, summarize_numbers

IRIS = load_iris(as_frame=True)
X = IRIS.data
SPECIES = IRIS.target_names[IRIS.target]
WINE = load_wine(as_frame=True)
DIABETES = load_diabetes(as_frame=True, scaled=False)
GENERIC = str(COMPONENTS / "generic_model.wasm")


def files(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """model.toml, baseline.json and golden.json."""
    parsed = [json.loads((folder / f"{name}.json").read_text()) for name in ("baseline", "golden")]
    return tomllib.loads((folder / "model.toml").read_text()), parsed[0], parsed[1]


def check_golden(folder: Path, golden: dict[str, Any]) -> None:
    """Compares the cases with ONNX Runtime."""
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    names = [output.name for output in session.get_outputs()]
    array = lambda t: np.array(t["data"]).reshape(t["shape"])
    for case in golden["cases"]:
        rows = array(case["inputs"]["features"]).astype(np.float32)
        for name, of_graph in zip(names, session.run(names, {"features": rows})):
            expected = array(case["outputs"][name])
            assert of_graph.shape == expected.shape
            assert np.abs(of_graph - expected).max() <= golden["tolerance"]


def test_export_classifier_with_class_names(tmp_path: Path) -> None:
    forest = RandomForestClassifier(30, random_state=1).fit(X, SPECIES)
    folder = model_trainer.export(
        forest, X, SPECIES, name="iris-forest", directory=tmp_path, metrics={"test_accuracy": 0.97}
    )
    assert folder == tmp_path / "iris-forest/1"
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        *("1", "baseline.json", "golden.json", "iris-forest", "model.onnx", "model.toml")
    ]
    model, baseline, golden = files(folder)
    assert model["name"] == "iris-forest" and model["version"] == "1"
    assert model["labels"] == ["setosa", "versicolor", "virginica"]
    assert model["sha256"] == hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    assert model["inputs"] == [
        {"name": "features", "datatype": "FP32", "shape": [-1, 4], "fields": list(X.columns)}
    ]
    assert model["outputs"] == [
        {"name": "label", "datatype": "INT64", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
    ]
    assert (
        model["provenance"]["estimator"]
        == "RandomForestClassifier(n_estimators=30, random_state=1)"
    )
    assert model["provenance"]["metrics"] == {"reference_accuracy": 1.0, "test_accuracy": 0.97}
    assert baseline["rows"] == 150 and list(baseline["features"]) == sorted(X.columns)
    label = baseline["outputs"]["label"]
    assert label["values"] == [0, 1, 2] and label["counts"] == [50, 50, 50]
    assert set(baseline["outputs"]) == {"label", *(f"probabilities[{i}]" for i in range(3))}
    assert len(golden["cases"]) == 31 and golden["cases"][-1]["inputs"]["features"]["shape"] == [
        30,
        4,
    ]
    check_golden(folder, golden)


def test_export_regression(tmp_path: Path) -> None:
    trees = GradientBoostingRegressor(n_estimators=20, random_state=1)
    trees.fit(DIABETES.data, DIABETES.target)
    folder = model_trainer.export(
        trees, DIABETES.data, DIABETES.target, name="diabetes", directory=tmp_path
    )
    model, baseline, golden = files(folder)
    assert "labels" not in model
    assert model["outputs"] == [{"name": "target", "datatype": "FP32", "shape": [-1, 1]}]
    assert 0 < model["provenance"]["metrics"]["reference_r2"] < 1
    assert baseline["outputs"]["target"]["kind"] == "number" and 1e-4 < golden["tolerance"] < 1e-2
    check_golden(folder, golden)


def test_export_is_reproducible(tmp_path: Path) -> None:
    tree = DecisionTreeClassifier(random_state=1).fit(X, SPECIES)
    folders = [
        model_trainer.export(tree, X, name="tree", directory=tmp_path / place) for place in "ab"
    ]
    for name in ("model.onnx", "model.toml", "baseline.json", "golden.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_versions_increment_and_are_never_overwritten(tmp_path: Path) -> None:
    model = LogisticRegression(max_iter=500).fit(X, IRIS.target)
    export = lambda **more: model_trainer.export(model, X, name="iris", directory=tmp_path, **more)
    assert [export().name, export(version=7).name, export().name] == ["1", "7", "8"]
    before = (tmp_path / "iris/7/model.toml").read_bytes()
    with pytest.raises(ExportError, match="exists, and a version is never overwritten.*version 9"):
        export(version=7)
    for version in ("v1", 0, "01", "../1"):
        with pytest.raises(ExportError, match="expected a number of at least 1"):
            export(version=version)
    assert (tmp_path / "iris/7/model.toml").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "iris").iterdir()) == ["1", "7", "8"]


def test_failed_write_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    model = LogisticRegression(max_iter=500).fit(X, IRIS.target)
    with pytest.raises(ExportError, match="No space left on device"):
        model_trainer.export(model, X, name="iris", directory=tmp_path)
    assert list((tmp_path / "iris").iterdir()) == []


@pytest.mark.parametrize(
    "estimator, data, target, message",
    [
        (LogisticRegression(), X, None, r"LogisticRegression\(\): not fitted"),
        (StandardScaler(), X, SPECIES, r"StandardScaler\(\).*has no predict"),
        (KMeans(3), X, SPECIES, "KMeans is neither a classifier nor a regressor"),
        (
            TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1),
            DIABETES.data,
            DIABETES.target,
            r"TransformedTargetRegressor\(.*cannot be converted to ONNX",
        ),
        (
            MultiOutputClassifier(LogisticRegression(max_iter=500)),
            X,
            np.stack([IRIS.target, IRIS.target == 1], 1),
            "MultiOutputClassifier.*several targets",
        ),
        # skl2onnx 1.20 has its probabilities of two classes wrong.
        (
            LinearDiscriminantAnalysis(),
            X,
            IRIS.target == 1,
            "the graph differs for 150 of 150 rows; the probabilities of row 0",
        ),
    ],
)
def test_estimator_that_cannot_be_converted_is_named(
    tmp_path: Path, estimator: Any, data: Any, target: Any, message: str
) -> None:
    if target is not None:
        estimator.fit(data, target)
    with pytest.raises(ExportError, match=message):
        model_trainer.export(estimator, data, name="m", directory=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "more, message",
    [
        ({"name": "iris_classifier"}, "try 'iris-classifier'"),
        ({"name": "../iris"}, "try 'iris'"),
        ({"name": "3"}, "try 'iris-classifier'"),
        ({"name": "Iris"}, "try 'iris'"),
        ({"labels": ["a"]}, "expected 3 names, got 1"),
        ({"labels": ["a", "b", "a"]}, "duplicate names"),
        ({"fields": ["a"]}, "expected 4 names, got 1"),
        ({"fields": list("aabc")}, "duplicate name 'a'"),
        ({"X": X.assign(colour="white")[["colour"]]}, "column 'colour' is not numeric"),
        ({"X": [["a"]]}, "expected numbers"),
        ({"X": [1, 2]}, r"expected rows of features, got the shape \[2\]"),
        ({"X": X * 1e38}, "row 0, column 0 is out of range for float32"),
        ({"y": [1]}, "expected 150 values, one per row of X; got 1"),
    ],
)
def test_invalid_arguments_are_errors(tmp_path: Path, more: Any, message: str) -> None:
    model = DecisionTreeClassifier(random_state=1).fit(X.to_numpy(), IRIS.target)
    arguments = {"X": X, "name": "iris", "directory": tmp_path, **more}
    with pytest.raises(ExportError, match=message):
        model_trainer.export(model, **arguments)
    assert not list(tmp_path.glob("*/*"))


def test_differing_rows_warn_and_are_excluded(tmp_path: Path) -> None:
    # Two values that are equal in float32 and differ in float64.
    rows = np.arange(100.0)[:, None]
    rows[50:52, 0] = [50.0, 50.0 + 1e-9]
    nearest = KNeighborsClassifier(1).fit(rows, np.arange(100) > 50)
    with pytest.warns(
        DisagreementWarning, match="1 of 100 rows; the class of row 51: False, not True"
    ):
        folder = model_trainer.export(nearest, rows, name="near", directory=tmp_path)
    _, _, golden = files(folder)
    check_golden(folder, golden)
    with pytest.raises(ExportError, match="1 of 100 rows"):
        model_trainer.export(nearest, rows, name="near", directory=tmp_path, max_disagreement=0)


def test_missing_values(tmp_path: Path) -> None:
    holes = X.mask(np.random.default_rng(1).random(X.shape) < 0.2)
    trees = HistGradientBoostingClassifier(max_iter=5, random_state=1).fit(holes, SPECIES)
    folder = model_trainer.export(trees, holes, name="holes", directory=tmp_path)
    _, baseline, golden = files(folder)
    for name, summary in baseline["features"].items():
        assert summary["missing"] == holes[name].isna().sum() > 0
        assert summary["count"] + summary["missing"] == 150
        assert sum(summary["counts"]) == summary["count"]
    assert len(golden["cases"]) > 20
    for row in range(len(holes)):
        holes.iloc[row, row % 4] = np.nan
    with pytest.warns(UserWarning, match="golden.json has no cases"):
        model_trainer.export(trees, holes, name="holes", directory=tmp_path)


def test_column_without_values_has_a_summary() -> None:
    assert summarize_numbers(np.full(3, np.nan, np.float32)) == {
        **{"kind": "number", "edges": [], "counts": [0], "count": 0, "missing": 3}
    }


@given(
    of_numpy.arrays(
        np.float32,
        st.integers(1, 60),
        elements=st.one_of(st.floats(-1e6, 1e6, width=32), st.sampled_from([0.0, 1.0, 1.5, 2.0])),
    )
)
def test_summaries_match_those_of_the_example_models(values: Any) -> None:
    sys.path.insert(0, str(REPOSITORY / "models"))
    try:
        from reference import summarize_numbers as of_examples
    finally:
        sys.path.pop(0)
    ours, theirs = summarize_numbers(values), of_examples(values)
    for moment in ("mean", "std"):
        # Summed in another order.
        assert ours.pop(moment) == pytest.approx(theirs.pop(moment), rel=1e-5, abs=1e-5)
    edges = ours["edges"]
    assert all(low < high for low, high in zip(edges, edges[1:]))
    # Floats next to each other have nothing between them: an edge of the examples is then on one.
    if not {shortest(value) for value in values} & {*theirs["edges"]}:
        assert ours == theirs


PIPELINES: list[tuple[str, Any, Any, Any]] = [
    (
        "forest-of-names",
        RandomForestClassifier(10, random_state=1),
        WINE.data,
        WINE.target_names[WINE.target],
    ),
    ("logistic-of-integers", LogisticRegression(max_iter=5000), X, IRIS.target * 2 + 3),
    ("two-classes", make_pipeline(StandardScaler(), LogisticRegression()), X, IRIS.target == 1),
    (
        "columns-by-name",
        make_pipeline(
            make_column_transformer(
                (make_pipeline(SimpleImputer(), StandardScaler()), list(X.columns[:2])),
                (MinMaxScaler(), [X.columns[2]]),
                remainder="passthrough",
            ),
            LogisticRegression(),
        ),
        X,
        SPECIES,
    ),
    ("margins", LinearSVC(random_state=1), X, SPECIES),
    ("kernels", make_pipeline(StandardScaler(), SVC()), X, SPECIES),
    ("calibrated", CalibratedClassifierCV(LinearSVC(random_state=1), cv=3), X, SPECIES),
    (
        "voting",
        VotingClassifier(
            [
                ("a", LogisticRegression(max_iter=500)),
                ("b", DecisionTreeClassifier(random_state=1)),
            ],
            voting="soft",
        ),
        X,
        SPECIES,
    ),
    (
        "grid",
        GridSearchCV(DecisionTreeClassifier(random_state=1), {"max_depth": [2, 3]}),
        X,
        SPECIES,
    ),
    (
        "network",
        make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=500, random_state=1)),
        X,
        SPECIES,
    ),
    ("line", LinearRegression(), DIABETES.data, DIABETES.target),
    ("two-targets", LinearRegression(), DIABETES.data, np.stack([DIABETES.target] * 2, 1)),
    (
        "boosting",
        GradientBoostingRegressor(n_estimators=10, random_state=1),
        DIABETES.data,
        DIABETES.target,
    ),
]


@pytest.mark.filterwarnings("ignore")
def test_host_serves_exported_models(tmp_path: Path, serve: Callable[[str], str]) -> None:
    manifest = ['spin_manifest_version = 2\n[application]\nname = "exported"\n']
    for name, estimator, data, target in PIPELINES:
        estimator.fit(data, target)
        folder = model_trainer.export(
            estimator, data, target, name=name, directory=tmp_path / "models"
        )
        manifest.append(
            model_trainer.manifest_entry(folder, component=GENERIC, manifest=tmp_path / "spin.toml")
        )
    assert 'files = [{ source = "models/line/1", destination = "/models/line" }]' in manifest[11]
    with MLClient(serve("\n".join(manifest))) as client:
        for name, estimator, data, _ in PIPELINES:
            predictions = client.predict_batch(name, data)
            given = [one["prediction"] for one in predictions]
            expected = estimator.predict(data)
            if hasattr(estimator, "classes_"):
                named = [str(one) if expected.dtype.kind in "bOU" else one for one in expected]
                assert given == named, name
            else:
                np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-3, err_msg=name)
            if hasattr(estimator, "predict_proba"):
                probabilities = [[*one["probabilities"].values()] for one in predictions]
                expected = estimator.predict_proba(data)
                np.testing.assert_allclose(probabilities, expected, atol=1e-4, err_msg=name)
            row = data.iloc[0]
            assert client.predict(name, row, version=1)["prediction"] == given[0], name


def test_labels_name_integer_classes(tmp_path: Path, serve: Callable[[str], str]) -> None:
    forest = RandomForestClassifier(5, random_state=1).fit(X, IRIS.target * 10)
    names = ["une", 'deux "é" \\', "trois\n😀\x7f"]
    folder = model_trainer.export(
        forest, X, name="iris", directory=tmp_path, labels=names, description='naïve "forêt"'
    )
    assert files(folder)[0]["labels"] == names
    entry = model_trainer.manifest_entry(folder, component=GENERIC, manifest=tmp_path / "spin.toml")
    head = 'spin_manifest_version = 2\n[application]\nname = "x"\n'
    with MLClient(serve(head + entry)) as client:
        given = [one["prediction"] for one in client.predict_batch("iris", X)]
    assert given == [names[index // 10] for index in forest.predict(X)]


def test_arrays_without_feature_names(tmp_path: Path) -> None:
    tree = DecisionTreeClassifier(random_state=1).fit(X.to_numpy(), IRIS.target)
    folder = model_trainer.export(tree, X.to_numpy(), name="tree", directory=tmp_path)
    model, baseline, _ = files(folder)
    assert "fields" not in model["inputs"][0]
    assert list(baseline["features"]) == [f"features[{index}]" for index in range(4)]
    named = DecisionTreeClassifier(random_state=1).fit(X, IRIS.target)
    folder = model_trainer.export(named, X.to_numpy(), name="tree", directory=tmp_path)
    assert files(folder)[0]["inputs"][0]["fields"] == list(X.columns)
    # Columns in another order are put into that of the fit.
    folder = model_trainer.export(named, X[X.columns[::-1]], name="tree", directory=tmp_path)
    assert files(folder)[0]["inputs"][0]["fields"] == list(X.columns)


def test_nullable_columns(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": pd.array([1, 2, None, 4], "Int64"), "b": [True, False, True, False]})
    trees = HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=1)
    trees.fit(frame.astype(float), [0, 1, 0, 1])
    folder = model_trainer.export(trees, frame.astype({"a": float}), name="m", directory=tmp_path)
    assert files(folder)[1]["features"]["a"]["missing"] == 1
