"""Makes estimators.json.gz: what skl2onnx makes of every estimator it supports, and of pipelines.

    .venv/bin/python host/backend-tract/tests/make_estimators.py

Each estimator of `skl2onnx.supported_converters()` is fitted on a few rows of iris or diabetes with
its default arguments, or those it needs (`SPECIAL`), and converted with skl2onnx's default options
(`ZipMap` included). A line of the file is a JSON object: `name`, `kind`, `model` (base64) if it
converts, `error` if it does not or ONNX Runtime cannot run it, else `inputs` and `outputs` ({`name`,
`ty`, `shape`, `data`}), the probabilities of a `ZipMap` as a tensor, lists of tensors without data.
Versions are those of models/requirements.txt. `tests/ml/estimators.rs` makes OPERATORS.md of it.
"""

import base64
import gzip
import json
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import skl2onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn import base, calibration, cluster, compose, datasets, decomposition, ensemble, feature_selection
from sklearn import impute, linear_model, multiclass, naive_bayes, neighbors, neural_network, preprocessing, svm, tree
from sklearn.pipeline import make_pipeline, make_union

OUT = Path(__file__).with_name("estimators.json.gz")
TYPES = {"float32": "F32", "float64": "F64", "int32": "I32", "int64": "I64", "object": "Str"}
# Kinds of skl2onnx's table that are not scikit-learn's.
NOT_SKLEARN = {"CastRegressor", "CastTransformer", "ReplaceTransformer", "_ConstantPredictor"}

IRIS, SPECIES = datasets.load_iris(return_X_y=True)
IRIS, SPECIES = IRIS[::3].astype(np.float32), SPECIES[::3]
DIABETES, PROGRESS = datasets.load_diabetes(return_X_y=True)
DIABETES, PROGRESS = (DIABETES[:60] * 20).astype(np.float32), (PROGRESS[:60] / 100).astype(np.float32)
TWO = np.stack([PROGRESS, PROGRESS**2], 1)
HOLES = np.where(np.random.default_rng(0).random(IRIS.shape) < 0.2, np.nan, IRIS).astype(np.float32)
COUNTS = (IRIS * 2).round().astype(np.int64)
WORDS = np.array(["the quick fox", "a lazy dog", "the dog", "quick quick fox"] * 5)

tree_classifier = lambda: tree.DecisionTreeClassifier(max_depth=3, random_state=0)
tree_regressor = lambda: tree.DecisionTreeRegressor(max_depth=3, random_state=0)
logistic = lambda: linear_model.LogisticRegression(max_iter=200)
ridge = lambda: linear_model.Ridge()
flat = lambda x: np.asarray(x, np.float32)

# What an estimator needs beside its name: arguments, and what it is fitted on.
SPECIAL = {
    "BaggingClassifier": dict(args=dict(estimator=tree_classifier(), n_estimators=3, random_state=0)),
    "BaggingRegressor": dict(args=dict(estimator=tree_regressor(), n_estimators=3, random_state=0)),
    "CalibratedClassifierCV": dict(args=dict(estimator=logistic(), cv=2)),
    "CategoricalNB": dict(x=(COUNTS % 4), args=dict(min_categories=4)),
    "ColumnTransformer": dict(args=dict(transformers=[("a", preprocessing.StandardScaler(), [0, 1]), ("b", preprocessing.MinMaxScaler(), [2, 3])])),
    "CountVectorizer": dict(x=WORDS),
    "TfidfVectorizer": dict(x=WORDS),
    "DictVectorizer": dict(x=[{"a": 1.0, "b": 2.0}, {"b": 1.0}]),
    "FeatureHasher": dict(x=WORDS.reshape(-1, 1), args=dict(n_features=8, input_type="string")),
    "FeatureUnion": dict(args=dict(transformer_list=[("a", preprocessing.StandardScaler()), ("b", decomposition.PCA(2))])),
    "FunctionTransformer": dict(args=dict()),
    "GridSearchCV": dict(args=dict(estimator=logistic(), param_grid={"C": [0.1, 1.0]}, cv=2)),
    "TunedThresholdClassifierCV": dict(args=dict(estimator=logistic(), cv=2), y=(SPECIES == 1).astype(int)),
    "KernelPCA": dict(args=dict(n_components=3)),
    "KernelCenterer": dict(x=flat(IRIS[:20] @ IRIS[:20].T)),
    "KBinsDiscretizer": dict(args=dict(encode="onehot-dense", quantile_method="averaged_inverted_cdf")),
    "LabelBinarizer": dict(x=COUNTS[:, 0], y=None),
    "LabelEncoder": dict(x=COUNTS[:, 0], y=None),
    "NearestNeighbors": dict(args=dict(radius=None)),
    "RandomTreesEmbedding": dict(args=dict(n_estimators=4, max_depth=3, sparse_output=False, random_state=0)),
    "OneHotEncoder": dict(x=COUNTS, args=dict(handle_unknown="ignore")),
    "OrdinalEncoder": dict(x=COUNTS),
    "TargetEncoder": dict(x=COUNTS, y=SPECIES == 1),
    "KNNImputer": dict(x=HOLES),
    "SimpleImputer": dict(x=HOLES),
    "MultiOutputClassifier": dict(args=dict(estimator=logistic()), y=np.stack([SPECIES, SPECIES == 1], 1).astype(int)),
    "MultiOutputRegressor": dict(args=dict(estimator=ridge()), x=DIABETES, y=TWO),
    "OneVsOneClassifier": dict(args=dict(estimator=logistic())),
    "OneVsRestClassifier": dict(args=dict(estimator=logistic())),
    "Pipeline": dict(args=dict(steps=[("scale", preprocessing.StandardScaler()), ("model", logistic())])),
    "RANSACRegressor": dict(args=dict(random_state=0)),
    "RFE": dict(args=dict(estimator=logistic(), n_features_to_select=2)),
    "RFECV": dict(args=dict(estimator=logistic(), cv=2)),
    "SelectFromModel": dict(args=dict(estimator=tree_classifier())),
    "StackingClassifier": dict(args=dict(estimators=[("a", tree_classifier()), ("b", logistic())], cv=2)),
    "StackingRegressor": dict(args=dict(estimators=[("a", tree_regressor()), ("b", ridge())], cv=2)),
    "VotingClassifier": dict(args=dict(estimators=[("a", tree_classifier()), ("b", logistic())], voting="soft", flatten_transform=False)),
    "VotingRegressor": dict(args=dict(estimators=[("a", tree_regressor()), ("b", ridge())])),
    "GaussianProcessClassifier": dict(y=(SPECIES == 1).astype(int)),
    "RadiusNeighborsClassifier": dict(args=dict(radius=5.0)),
    "RadiusNeighborsRegressor": dict(args=dict(radius=50.0)),
    "LocalOutlierFactor": dict(args=dict(novelty=True)),
    "TfidfTransformer": dict(x=COUNTS.astype(np.float32)),
    "GaussianRandomProjection": dict(args=dict(n_components=2, random_state=0)),
    "QuantileTransformer": dict(args=dict(n_quantiles=10)),
    "PLSRegression": dict(x=DIABETES, y=TWO),
}

def arguments(cls):
    """Fixed seeds, and fewer and smaller trees than by default, to keep the file small."""
    known = cls._get_param_names() if hasattr(cls, "_get_param_names") else []
    chosen = dict(random_state=0)
    if "n_estimators" in known:
        chosen["n_estimators"] = 4
        chosen["max_depth"] = 3
    if cls.__name__.startswith("HistGradient"):
        chosen.update(max_iter=4, max_depth=3)
    if cls.__name__.startswith("MLP"):
        chosen.update(hidden_layer_sizes=(8, 6), max_iter=300)
    if cls.__name__ in ("KMeans", "MiniBatchKMeans", "GaussianMixture", "BayesianGaussianMixture"):
        chosen.update(n_clusters=3, n_components=3)
    if cls.__name__ == "SVC" or cls.__name__ == "NuSVC":
        chosen.update(probability=False)
    return {k: v for k, v in chosen.items() if k in known}


def estimators():
    from skl2onnx._supported_operators import sklearn_operator_name_map

    for cls in sorted(sklearn_operator_name_map, key=lambda cls: cls.__name__):
        name = cls.__name__
        if name in NOT_SKLEARN:
            continue
        special = SPECIAL.get(name, {})
        try:
            estimator = cls(**(special["args"] if "args" in special else arguments(cls)))
        except Exception as e:
            yield name, None, None, e
            continue
        if base.is_regressor(estimator):
            x, y = DIABETES, (TWO if name.startswith("MultiTask") else PROGRESS)
        else:
            x, y = IRIS, SPECIES
        yield name, estimator, special.get("x", x), special.get("y", y)


def pipelines():
    scale, p = preprocessing.StandardScaler, preprocessing
    mixed = compose.make_column_transformer(
        (make_pipeline(impute.SimpleImputer(), scale()), [0, 1]), (p.KBinsDiscretizer(3, encode="onehot-dense", quantile_method="averaged_inverted_cdf"), [2]), remainder="passthrough"
    )
    yield "impute, scale, LogisticRegression", make_pipeline(impute.SimpleImputer(), scale(), logistic()), HOLES, SPECIES
    yield "impute with indicator, RandomForest", make_pipeline(impute.SimpleImputer(add_indicator=True), ensemble.RandomForestClassifier(4, max_depth=3, random_state=0)), HOLES, SPECIES
    yield "scale, SVC RBF", make_pipeline(scale(), svm.SVC()), IRIS, SPECIES
    yield "scale, SVC RBF, two classes", make_pipeline(scale(), svm.SVC()), IRIS, (SPECIES == 1).astype(int)
    yield "scale, SVC poly", make_pipeline(scale(), svm.SVC(kernel="poly")), IRIS, SPECIES
    yield "scale, SVC sigmoid", make_pipeline(scale(), svm.SVC(kernel="sigmoid")), IRIS, SPECIES
    yield "scale, SVC linear", make_pipeline(scale(), svm.SVC(kernel="linear")), IRIS, SPECIES
    yield "scale, NuSVR", make_pipeline(scale(), svm.NuSVR()), DIABETES, PROGRESS
    yield "PCA, LogisticRegression", make_pipeline(decomposition.PCA(2), logistic()), IRIS, SPECIES
    yield "scale, PCA, GradientBoosting", make_pipeline(scale(), decomposition.PCA(3), ensemble.GradientBoostingClassifier(n_estimators=4, max_depth=3, random_state=0)), IRIS, SPECIES
    yield "union of PCA and SelectKBest, Ridge", make_pipeline(make_union(decomposition.PCA(2), feature_selection.SelectKBest(k=2)), ridge()), DIABETES, PROGRESS
    yield "columns: impute, scale, discretise; LogisticRegression", make_pipeline(mixed, logistic()), IRIS, SPECIES
    yield "one-hot integers, LogisticRegression", make_pipeline(p.OneHotEncoder(handle_unknown="ignore"), logistic()), COUNTS, SPECIES
    yield "ordinal, DecisionTree", make_pipeline(p.OrdinalEncoder(), tree_classifier()), COUNTS, SPECIES
    yield "binarize, BernoulliNB", make_pipeline(p.Binarizer(threshold=2.0), naive_bayes.BernoulliNB()), IRIS, SPECIES
    yield "polynomial, Ridge", make_pipeline(p.PolynomialFeatures(2), ridge()), DIABETES[:, :4], PROGRESS
    yield "power transform, MLP", make_pipeline(p.PowerTransformer(), neural_network.MLPClassifier((8,), max_iter=300, random_state=0)), IRIS, SPECIES
    yield "quantile transform, Ridge", make_pipeline(p.QuantileTransformer(n_quantiles=10), ridge()), DIABETES, PROGRESS
    yield "KMeans, as features, LogisticRegression", make_pipeline(cluster.KMeans(4, random_state=0), logistic()), IRIS, SPECIES
    yield "select from model, KNN", make_pipeline(feature_selection.SelectFromModel(tree_classifier()), neighbors.KNeighborsClassifier(3)), IRIS, SPECIES
    yield "normalise, KNN", make_pipeline(p.Normalizer(), neighbors.KNeighborsClassifier(3)), IRIS, SPECIES
    yield "voting of pipelines", ensemble.VotingClassifier([("a", make_pipeline(scale(), logistic())), ("b", tree_classifier())], voting="hard", flatten_transform=False), IRIS, SPECIES
    yield "stacking of pipelines", ensemble.StackingClassifier([("a", make_pipeline(scale(), logistic())), ("b", tree_classifier())], cv=2), IRIS, SPECIES
    yield "bagging of logistic regressions", ensemble.BaggingClassifier(logistic(), n_estimators=3, random_state=0), IRIS, SPECIES
    yield "calibrated SVC", make_pipeline(scale(), calibration.CalibratedClassifierCV(svm.LinearSVC(), cv=2)), IRIS, SPECIES
    yield "one versus rest of trees", multiclass.OneVsRestClassifier(tree_classifier()), IRIS, SPECIES
    yield "multi-output random forest", ensemble.RandomForestRegressor(4, max_depth=3, random_state=0), DIABETES, TWO
    yield "chained scalers", make_pipeline(scale(), p.MaxAbsScaler(), p.RobustScaler(), p.MinMaxScaler(), linear_model.SGDClassifier(random_state=0)), IRIS, SPECIES
    yield "target transformed", compose.TransformedTargetRegressor(ridge(), func=np.log1p, inverse_func=np.expm1), DIABETES, PROGRESS


def tensor(name, array):
    if isinstance(array, list):
        return {"name": name, "ty": "Sequence", "shape": []}
    array = np.asarray(array)
    array = np.ascontiguousarray(array) if array.ndim else array
    ty = TYPES.get(str(array.dtype))
    ty = "Bool" if array.dtype == bool else ty
    if ty == "Str" or array.dtype.kind == "U":
        return {"name": name, "ty": "Str", "shape": list(array.shape), "data": [str(s) for s in array.ravel()]}
    data = base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()
    return {"name": name, "ty": ty, "shape": list(array.shape), "data": data}


def dense(value):
    """A sequence of maps as the matrix of their values."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return np.array([list(row.values()) for row in value], np.float32)
    return value


def record(entry, estimator, x, y):
    if estimator is None:
        raise RuntimeError(f"cannot be made: {y}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(x, y) if y is not None else estimator.fit(x)
        if isinstance(x, list):
            raise RuntimeError("its input is a map")
        kind = StringTensorType if x.dtype.kind in "UO" else Int64TensorType if x.dtype.kind == "i" else FloatTensorType
        kind = kind([None] + list(x.shape[1:])) if x.ndim > 1 else kind([None, 1]) if x.dtype.kind in "UO" else kind([None])
        # Some converters know no newer `ai.onnx.ml`; skl2onnx says so.
        old = type(estimator).__name__ == "IsolationForest"
        opset = {"": 18, "ai.onnx.ml": 3} if old else None
        model = skl2onnx.to_onnx(estimator, initial_types=[("X", kind)], target_opset=opset)
    model.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    data = model.SerializeToString()
    entry["model"] = base64.b64encode(data).decode()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    rows = x[::7]
    if x.dtype.kind == "f":
        rows = rows + np.float32(0.003)  # off the thresholds, where the last bit of a float would decide
    rows = rows.reshape(-1, 1).astype(object) if x.dtype.kind in "UO" else rows
    entry["inputs"] = [tensor("X", rows)]
    outputs = session.run(None, {"X": rows})
    entry["outputs"] = [tensor(info.name, dense(value)) for info, value in zip(session.get_outputs(), outputs)]


def main():
    # skl2onnx hands booleans and NumPy's integers to onnx, which refuses them.
    import onnx.helper

    make_attribute = onnx.helper.make_attribute
    plain = lambda v: int(v) if isinstance(v, (bool, np.bool_, np.integer)) else float(v) if isinstance(v, np.floating) else v
    onnx.helper.make_attribute = lambda key, value, *a, **k: make_attribute(
        key, [plain(v) for v in value] if isinstance(value, (list, np.ndarray)) else plain(value), *a, **k)

    lines = []
    for kind, source in (("estimator", estimators), ("pipeline", pipelines)):
        for name, *rest in source():
            entry = {"name": name, "kind": kind}
            try:
                record(entry, *rest)
            except Exception as e:
                first = (str(e).strip().splitlines() or [""])[0]
                entry["error"] = f"{type(e).__name__}: {first[:200]}"
                print(f"{name}: {entry['error'][:160]}")
            lines.append(json.dumps(entry, sort_keys=True) + "\n")
    with OUT.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as stream:
        stream.write("".join(lines).encode())
    print(f"{len(lines)} entries, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    # skl2onnx numbers names in the order of a set.
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"PYTHONHASHSEED": "0"})
    main()
