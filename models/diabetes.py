"""diabetes-regressor: progression of the disease after one year, from ten measurements of a patient."""

import numpy as np
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_diabetes
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.metrics import mean_absolute_error, r2_score
from sklearn.model_selection import train_test_split

from estimator import provenance, to_onnx
from reference import Case, infer, off_thresholds
from version import Trained, Version

# scikit-learn's names. Units: years, 1 or 2, kg/m2, mmHg; of the blood serum total cholesterol, LDL,
# HDL, total / HDL, logarithm of triglycerides, glucose. Not scaled.
FIELDS = ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]
SEED = 1
TEST_ROWS = 89
GOLDEN_ROWS = 30
# The measurements have at most four decimals, so the distance of a row to a threshold is zero or at least
# half a unit in the fourth decimal.
THRESHOLD_CLEARANCE = 2e-5
# The mean is about 150, where float32 has a step of 1.5e-5; a prediction is a sum of a hundred leaves.
TOLERANCE = 1e-3
EDGE_CASES = [[0.0] * 10, [-1.5] * 10, [1e6] * 10, [-1e6] * 10, [1e6, -1e6] * 5]


def train(version):
    features, progression = load_diabetes(return_X_y=True, scaled=False)
    train_x, test_x, train_y, test_y = train_test_split(
        features.astype(np.float32), progression, test_size=TEST_ROWS, random_state=SEED
    )
    estimator = GradientBoostingRegressor(learning_rate=0.05, max_depth=2, random_state=SEED)
    estimator.fit(train_x, train_y)
    output = ("progression", FloatTensorType([None, 1]))
    graph = to_onnx(estimator, version, final_types=[output])

    def metrics(session):
        predicted = infer(session, test_x)["progression"][:, 0]
        return {
            "test_r2": round(float(r2_score(test_y, predicted)), 4),
            "test_mean_absolute_error": round(float(mean_absolute_error(test_y, predicted)), 2),
        }

    golden = test_x[off_thresholds(graph, test_x, THRESHOLD_CLEARANCE)][:GOLDEN_ROWS]
    assert len(golden) == GOLDEN_ROWS
    single_rows = np.concatenate([golden, np.array(EDGE_CASES, np.float32)])
    dataset = (
        "diabetes (Efron et al. 2004) as in scikit-learn, as measured: 442 rows, of them "
        f"{442 - TEST_ROWS} train and {TEST_ROWS} test, split seed {SEED}"
    )
    return Trained(
        graph=graph,
        reference=train_x,
        golden=[Case(batch) for batch in [*single_rows[:, None], golden]],
        tolerance=TOLERANCE,
        metrics=metrics,
        provenance=provenance(dataset, estimator),
    )


VERSIONS = [
    Version(
        model="diabetes-regressor",
        number="1",
        description="Progression of diabetes in a year (25 to 346) from ten measurements: "
        "gradient boosting of 100 trees.",
        train=train,
        fields=FIELDS,
    )
]
