"""iris-classifier: species of iris from four measurements of a flower."""

import numpy as np
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from estimator import accuracy, provenance, to_onnx
from reference import Case, check_off_thresholds
from version import Trained, Version

FIELDS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
LABELS = ["setosa", "versicolor", "virginica"]
SEED = 1
TEST_ROWS = 30
# Measurements have a resolution of 0.1 cm, so split thresholds are on a grid of 0.05 cm. Golden rows
# are moved off that grid: on a threshold, the last bit of a float would decide the branch.
GOLDEN_SHIFT_CM = 0.02
THRESHOLD_CLEARANCE_CM = 0.01
TOLERANCE = 1e-5
EDGE_CASES = [
    [0.0, 0.0, 0.0, 0.0],
    [-5.12, -3.52, -1.42, -0.22],
    [1e6, 1e6, 1e6, 1e6],
    [-1e6, -1e6, -1e6, -1e6],
    [1e6, -1e6, 1e6, -1e6],
]


def split():
    """Features in cm and class indices: train_x, test_x, train_y, test_y."""
    features, classes = load_iris(return_X_y=True)
    return train_test_split(
        features, classes, test_size=TEST_ROWS, random_state=SEED, stratify=classes
    )


def fit(estimator, features, classes):
    estimator.fit(features, classes)
    if isinstance(estimator, LogisticRegression):
        # The last digits differ between BLAS kernels, and therefore between CPUs.
        estimator.coef_ = estimator.coef_.round(6)
        estimator.intercept_ = estimator.intercept_.round(6)


def train(version, estimator):
    train_x, test_x, train_y, test_y = split()
    fit(estimator, train_x, train_y)
    graph = to_onnx(estimator, version, options={"zipmap": False})
    test_rows = (test_x + GOLDEN_SHIFT_CM).astype(np.float32)
    single_rows = np.concatenate([test_rows, np.array(EDGE_CASES, np.float32)])
    check_off_thresholds(graph, single_rows, THRESHOLD_CLEARANCE_CM)
    dataset = (
        f"iris (Fisher 1936) as in scikit-learn: 150 rows, of them {150 - TEST_ROWS} train and "
        f"{TEST_ROWS} test, stratified, split seed {SEED}"
    )
    return Trained(
        graph=graph,
        reference=train_x.astype(np.float32),
        golden=[Case(batch) for batch in [*single_rows[:, None], test_rows]],
        tolerance=TOLERANCE,
        metrics=lambda session: accuracy(session, test_x, test_y),
        provenance=provenance(dataset, estimator),
    )


def version(number, kind, estimator):
    return Version(
        model="iris-classifier",
        number=number,
        description=f"Iris species from four flower measurements in cm: {kind}.",
        train=lambda version: train(version, estimator),
        fields=FIELDS,
        labels=LABELS,
    )


VERSIONS = [
    version(
        "1",
        "multinomial logistic regression",
        LogisticRegression(solver="newton-cholesky", tol=1e-10),
    ),
    version(
        "2",
        "random forest of 100 trees",
        RandomForestClassifier(n_estimators=100, random_state=SEED),
    ),
]
