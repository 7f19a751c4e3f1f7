"""Writes cases.json.gz: models, inputs, and ONNX Runtime's outputs for them.

    .venv/bin/python host/backend-lean/tests/make_cases.py

- random tree ensembles in every combination of node mode, aggregate, post-transform and task, with
  and without NaN, in FP32 and FP64
- linear models
- small networks
- scikit-learn's estimators through skl2onnx

Seeds are fixed. Each line is one case, a JSON object: `name`, `model` (base64), `input` and `outputs`
({`ty`, `shape`, `data` (base64, little-endian)}) in the graph's order.
"""

import base64
import itertools
import warnings
from pathlib import Path

import case_file
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OUT = Path(__file__).with_name("cases.json.gz")
ML = "ai.onnx.ml"
TYPES = {"float32": "FP32", "float64": "FP64", "int32": "I32", "int64": "I64"}
ELEMENTS = {
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "I32": TensorProto.INT32,
    "I64": TensorProto.INT64,
}
MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "mixed"]
AGGREGATES = ["SUM", "AVERAGE", "MIN", "MAX"]
POSTS = ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"]

cases = []


def tensor(array):
    array = np.ascontiguousarray(array)
    return {
        "ty": TYPES[str(array.dtype)],
        "shape": list(array.shape),
        "data": base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode(),
    }


def case(name, model, x):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    data = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: x})
    entry = {
        "name": name,
        "model": base64.b64encode(data).decode(),
        "input": tensor(x),
        "outputs": [tensor(output) for output in outputs],
    }
    cases.append(entry)


def model(nodes, x, outputs, initializers=(), tail=None):
    """A graph from `x`, its first axis free, to `outputs`: (name, element type, axes)."""
    axes = [None, *x.shape[1:]] if tail is None else tail
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", ELEMENTS[TYPES[str(x.dtype)]], axes)],
        [helper.make_tensor_value_info(*output) for output in outputs],
        list(initializers),
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def trees(random, mode, features, targets, missing, votes, count=3, depth=3, grid=4):
    """Random trees. Thresholds and inputs share a coarse grid, so that ties are common."""
    a = {k: [] for k in "treeids nodeids featureids modes values truenodeids falsenodeids missing_value_tracks_true".split()}
    leaves = {k: [] for k in "treeids nodeids ids weights".split()}
    for tree in range(count):
        pending, following = [(0, depth)], 1
        while pending:
            node, levels = pending.pop(0)
            leaf = levels == 0 or (random.random() < 0.25 and levels < depth)
            a["treeids"].append(tree)
            a["nodeids"].append(node)
            a["featureids"].append(0 if leaf else int(random.integers(features)))
            kind = MODES[int(random.integers(6))] if mode == "mixed" else mode
            a["modes"].append("LEAF" if leaf else kind)
            a["values"].append(float(random.integers(-grid, grid + 1)) / 4)
            a["missing_value_tracks_true"].append(int(missing and random.random() < 0.5))
            a["truenodeids"].append(0 if leaf else following)
            a["falsenodeids"].append(0 if leaf else following + 1)
            if leaf:
                for target in votes(random, targets):
                    leaves["treeids"].append(tree)
                    leaves["nodeids"].append(node)
                    leaves["ids"].append(target)
                    leaves["weights"].append(float(np.float32(random.normal())))
            else:
                pending += [(following, levels - 1), (following + 1, levels - 1)]
                following += 2
    if not missing:
        del a["missing_value_tracks_true"]
    return {f"nodes_{k}": v for k, v in a.items()}, leaves


def inputs(random, rows, features, nan, dtype=np.float32, grid=4):
    x = random.integers(-grid, grid + 1, size=(rows, features)) / 4
    if nan:
        x[random.random(x.shape) < 0.3] = np.nan
    return x.astype(dtype)


ALL = lambda random, n: range(n)
SOME = lambda random, n: sorted(set(random.integers(n, size=2).tolist()))
FIRST = lambda random, n: [0]
SECOND = lambda random, n: [1]


def as_double(attributes, names):
    for name in names:
        if name in attributes:
            values = np.array(attributes.pop(name), np.float64) + 1e-12
            attributes[f"{name}_as_tensor"] = numpy_helper.from_array(values, name)


def regressor(name, random, mode, aggregate, post, targets, missing, votes, base, dtype=np.float32, tensors=False):
    nodes, leaves = trees(random, mode, 3, targets, missing, votes)
    attributes = nodes | {f"target_{k}": v for k, v in leaves.items()}
    if base:
        attributes["base_values"] = [float(np.float32(random.normal())) for _ in range(targets)]
    if tensors:
        as_double(attributes, ["nodes_values", "target_weights", "base_values"])
    node = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain=ML, n_targets=targets,
        aggregate_function=aggregate, post_transform=post, **attributes,
    )
    x = inputs(random, 8, 3, missing or mode == "mixed", dtype)
    case(name, model([node], x, [("y", TensorProto.FLOAT, [None, targets])]), x)


def classifier(name, random, mode, post, labels, missing, votes, base, positive, dtype=np.float32, tensors=False):
    nodes, leaves = trees(random, mode, 3, len(labels), missing, votes)
    if positive:
        leaves["weights"] = [abs(w) / 3 for w in leaves["weights"]]
    attributes = nodes | {f"class_{k}": v for k, v in leaves.items()}
    if base:
        attributes["base_values"] = [float(np.float32(random.normal())) for _ in range(base)]
    if tensors:
        as_double(attributes, ["nodes_values", "class_weights", "base_values"])
    node = helper.make_node(
        "TreeEnsembleClassifier", ["x"], ["label", "y"], domain=ML,
        classlabels_int64s=labels, post_transform=post, **attributes,
    )
    floating = np.issubdtype(np.dtype(dtype), np.floating)
    x = inputs(random, 8, 3, floating and (missing or mode == "mixed"), np.float32)
    x = x.astype(dtype) if floating else (x * 4).astype(dtype)
    outputs = [("label", TensorProto.INT64, [None]), ("y", TensorProto.FLOAT, [None, len(labels)])]
    case(name, model([node], x, outputs), x)


def tree_cases():
    random = np.random.default_rng(20)
    for mode, aggregate, missing, targets in itertools.product(MODES, AGGREGATES, (0, 1), (1, 3)):
        name = f"regressor {mode} {aggregate} targets={targets} missing={missing}"
        votes = FIRST if targets == 1 else SOME
        regressor(name, random, mode, aggregate, "NONE", targets, missing, votes, base=missing)
    for aggregate, post, targets, base in itertools.product(AGGREGATES, POSTS, (1, 2, 3), (0, 1)):
        name = f"regressor mixed {aggregate} {post} targets={targets} base={base}"
        regressor(name, random, "mixed", aggregate, post, targets, 1, ALL, base)
    for aggregate, tensors in itertools.product(AGGREGATES, (0, 1)):
        for targets, post in itertools.product((1, 3), ("NONE", "SOFTMAX_ZERO")):
            name = f"regressor FP64 {aggregate} {post} targets={targets} tensors={tensors}"
            regressor(name, random, "mixed", aggregate, post, targets, 1, ALL, 1, np.float64, tensors)
    for mode, missing in itertools.product(MODES, (0, 1)):
        name = f"classifier {mode} missing={missing}"
        classifier(name, random, mode, "NONE", [4, 7, 9], missing, SOME, 0, True)
    for post, base, votes in itertools.product(POSTS, (0, 3), (ALL, SOME)):
        name = f"classifier three {post} base={base} votes={'all' if votes is ALL else 'some'}"
        classifier(name, random, "mixed", post, [4, 7, 9], 1, votes, base, False)
    for post, base, positive in itertools.product(POSTS, (0, 1, 2), (False, True)):
        for kind, votes in [("both", ALL), ("first", FIRST), ("second", SECOND), ("some", SOME)]:
            if (post == "PROBIT" or base == 1) and kind in ("first", "some"):
                if post == "PROBIT" or kind == "some":
                    continue  # ONNX Runtime leaves an output uninitialised
            name = f"classifier two {post} base={base} positive={positive} votes={kind}"
            classifier(name, random, "mixed", post, [4, 7], 1, votes, base, positive)
    for post, base in itertools.product(POSTS, (0, 1)):
        classifier(f"classifier one {post} base={base}", random, "mixed", post, [4], 1, FIRST, base, False)
    for dtype, labels in itertools.product((np.float64, np.int32, np.int64), ([4, 7], [4, 7, 9])):
        for tensors in (0, 1) if dtype is np.float64 else (0,):
            name = f"classifier {np.dtype(dtype)} classes={len(labels)} tensors={tensors}"
            classifier(name, random, "BRANCH_LEQ", "LOGISTIC", labels, 0, ALL, len(labels), False, dtype, tensors)
    # A leaf with several weights or none, in a forest with one target.
    regressor("regressor one target, two votes", random, "BRANCH_LT", "SUM", "NONE", 1, 0, lambda r, n: [0, 0], 0)
    odd = lambda r, n: [0] if r.random() < 0.6 else []
    for aggregate in AGGREGATES:
        regressor(f"regressor {aggregate} one target, no votes", random, "BRANCH_LT", aggregate, "NONE", 1, 0, odd, 1)
        regressor(f"regressor {aggregate} two targets, no votes", random, "BRANCH_LT", aggregate, "NONE", 2, 0, odd, 1)


def linear_cases():
    random = np.random.default_rng(21)
    floats = lambda *shape: random.normal(size=shape).astype(np.float32)
    for post, targets in itertools.product(POSTS, (1, 3)):
        x = floats(8, 5)
        node = helper.make_node(
            "LinearRegressor", ["x"], ["y"], domain=ML, targets=targets, post_transform=post,
            coefficients=floats(5 * targets) / 4, intercepts=floats(targets) / 4 + 0.5,
        )
        outputs = [("y", TensorProto.FLOAT, [None, targets])]
        case(f"linear regressor {post} targets={targets}", model([node], x, outputs), x)
    for post, dtype in itertools.product(POSTS, (np.float32, np.float64, np.int32, np.int64)):
        for scores, labels in ((1, [4, 7]), (2, [4, 7]), (3, [4, 7, 9])):
            if (dtype is not np.float32 and scores != 3) or (post == "PROBIT" and scores == 1):
                continue
            x = (floats(8, 4) * (1 if np.issubdtype(dtype, np.floating) else 4)).astype(dtype)
            node = helper.make_node(
                "LinearClassifier", ["x"], ["label", "y"], domain=ML, post_transform=post,
                classlabels_ints=labels, coefficients=floats(4 * scores), intercepts=floats(scores),
            )
            outputs = [("label", TensorProto.INT64, [None]), ("y", TensorProto.FLOAT, [None, len(labels)])]
            name = f"linear classifier {post} scores={scores} {np.dtype(dtype)}"
            case(name, model([node], x, outputs), x)
    for norm, dtype in itertools.product(("MAX", "L1", "L2"), (np.float32, np.float64, np.int32, np.int64)):
        x = (floats(6, 3) * 4).astype(dtype)
        x[1] = 0
        node = helper.make_node("Normalizer", ["x"], ["y"], domain=ML, norm=norm)
        case(f"normalizer {norm} {np.dtype(dtype)}", model([node], x, [("y", TensorProto.FLOAT, [None, 3])]), x)
    for length, dtype in itertools.product((1, 3), (np.float32, np.float64, np.int32, np.int64)):
        x = (floats(6, 3) * 4).astype(dtype)
        node = helper.make_node("Scaler", ["x"], ["y"], domain=ML, offset=floats(length), scale=floats(length))
        case(f"scaler {length} {np.dtype(dtype)}", model([node], x, [("y", TensorProto.FLOAT, [None, 3])]), x)


def network_cases():
    random = np.random.default_rng(22)
    floats = lambda *shape: random.normal(size=shape).astype(np.float32)
    constant = lambda name, array: numpy_helper.from_array(np.asarray(array), name)
    node = helper.make_node
    float_output = lambda n: [("y", TensorProto.FLOAT, [None, n])]
    x = floats(7, 5) * 3
    x[0] = [0.0, -0.0, 20.0, -20.0, 90.0]
    for operator, attributes in [("Relu", {}), ("LeakyRelu", {"alpha": 0.2}), ("Tanh", {}), ("Sigmoid", {}), ("Softmax", {"axis": 1}), ("Identity", {})]:
        case(operator, model([node(operator, ["x"], ["y"], **attributes)], x, float_output(5)), x)
    for operator, shape, first in itertools.product(("Add", "Sub", "Mul", "Div"), ((), (1,), (5,), (1, 5)), (False, True)):
        operands = ["c", "x"] if first else ["x", "c"]
        graph = model([node(operator, operands, ["y"])], x[1:], float_output(5), [constant("c", floats(*shape) + 2)])
        case(f"{operator} {shape} constant first={first}", graph, x[1:])
    for rows, inputs_, outputs in [(1, 5, 1), (7, 5, 3), (5, 40, 17), (9, 3, 33)]:
        x = floats(rows, inputs_)
        w, b = floats(inputs_, outputs), floats(outputs)
        graph = model([node("MatMul", ["x", "w"], ["y"])], x, float_output(outputs), [constant("w", w)])
        case(f"MatMul {rows}x{inputs_}x{outputs}", graph, x)
        gemm = node("Gemm", ["x", "w", "b"], ["y"], transB=1, alpha=0.5, beta=2.0)
        graph = model([gemm], x, float_output(outputs), [constant("w", np.ascontiguousarray(w.T)), constant("b", b)])
        case(f"Gemm {rows}x{inputs_}x{outputs}", graph, x)
    x = floats(6, 2, 3)
    w = constant("w", floats(6, 2))
    shape = constant("s", np.array([-1, 6], np.int64))
    graph = model([node("Flatten", ["x"], ["f"]), node("MatMul", ["f", "w"], ["y"])], x, float_output(2), [w])
    case("Flatten", graph, x)
    graph = model([node("Reshape", ["x", "s"], ["f"]), node("MatMul", ["f", "w"], ["y"])], x, float_output(2), [w, shape])
    case("Reshape", graph, x)
    x = np.array([[1, 3, 3, 2], [-1, -1, -2, -1], [0, 0, 0, 5]], np.float32)
    for keep, last in itertools.product((0, 1), (0, 1)):
        arg_max = node("ArgMax", ["x"], ["y"], axis=1, keepdims=keep, select_last_index=last)
        graph = model([arg_max], x, [("y", TensorProto.INT64, [None, 1] if keep else [None])])
        case(f"ArgMax keepdims={keep} last={last}", graph, x)
    # A value read twice must not be overwritten.
    x = floats(4, 3)
    nodes = [node("Identity", ["x"], ["a"]), node("Relu", ["x"], ["b"]), node("Tanh", ["a"], ["c"]), node("Concat", ["a", "b", "c", "x"], ["y"], axis=1)]
    case("values read twice", model(nodes, x, float_output(12)), x)
    x = (floats(4, 3) * 9).astype(np.float64)
    case("Cast", model([node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)], x, float_output(3)), x)
    x = floats(4, 3) * 9
    case("Cast to integers", model([node("Cast", ["x"], ["y"], to=TensorProto.INT64)], x, [("y", TensorProto.INT64, [None, 3])]), x)


def sklearn_cases():
    from sklearn.datasets import load_diabetes, load_iris
    from sklearn import ensemble, linear_model, neural_network, preprocessing, tree
    from sklearn.pipeline import make_pipeline
    import onnx.helper
    import skl2onnx

    # skl2onnx passes booleans and NumPy's integers to onnx, which refuses them.
    make_attribute = onnx.helper.make_attribute
    plain = lambda v: int(v) if isinstance(v, (bool, np.bool_, np.integer)) else v
    patched = lambda key, value, *a, **k: make_attribute(
        key, [plain(v) for v in value] if isinstance(value, list) else value, *a, **k)
    onnx.helper.make_attribute = patched

    iris, species = load_iris(return_X_y=True)
    diabetes, progress = load_diabetes(return_X_y=True)
    iris, diabetes = iris.astype(np.float32), (diabetes * 20).astype(np.float32)
    versicolor = (species == 1).astype(int)
    progress = progress / 100
    two = np.stack([progress, progress**2], 1)
    small = {"n_estimators": 6, "max_depth": 4, "random_state": 0}
    hist = {"max_iter": 4, "max_depth": 4, "random_state": 0}
    net = {"hidden_layer_sizes": (10, 6), "max_iter": 60, "random_state": 0}
    scaled = lambda estimator: make_pipeline(preprocessing.StandardScaler(), estimator)
    e, l, n = ensemble, linear_model, neural_network
    estimators = [
        ("LogisticRegression", l.LogisticRegression(), iris, species),
        ("LogisticRegression binary", l.LogisticRegression(), iris, versicolor),
        ("LinearRegression", l.LinearRegression(), diabetes, progress),
        ("Ridge two targets", l.Ridge(), diabetes, two),
        ("StandardScaler LogisticRegression", scaled(l.LogisticRegression()), iris, species),
        ("Normalizer Ridge", make_pipeline(preprocessing.Normalizer(), l.Ridge()), iris, progress[:150]),
        ("RandomForestClassifier", e.RandomForestClassifier(**small), iris, species + 3),
        ("RandomForestClassifier binary", e.RandomForestClassifier(**small), iris, versicolor),
        ("ExtraTreesClassifier", e.ExtraTreesClassifier(**small), iris, species),
        ("GradientBoostingClassifier", e.GradientBoostingClassifier(**small), iris, species),
        ("GradientBoostingClassifier binary", e.GradientBoostingClassifier(**small), iris, versicolor),
        ("HistGradientBoostingClassifier", e.HistGradientBoostingClassifier(**hist), iris, species),
        ("HistGradientBoostingClassifier binary", e.HistGradientBoostingClassifier(**hist), iris, versicolor),
        ("DecisionTreeClassifier", tree.DecisionTreeClassifier(random_state=0), iris, species),
        ("RandomForestRegressor", e.RandomForestRegressor(**small), diabetes, progress),
        ("ExtraTreesRegressor two targets", e.ExtraTreesRegressor(**small), diabetes, two),
        ("GradientBoostingRegressor", e.GradientBoostingRegressor(**small), diabetes, progress),
        ("HistGradientBoostingRegressor", e.HistGradientBoostingRegressor(**hist), diabetes, progress),
        ("DecisionTreeRegressor", tree.DecisionTreeRegressor(max_depth=5, random_state=0), diabetes, progress),
        ("MLPClassifier", scaled(n.MLPClassifier(**net)), iris, species + 3),
        ("MLPClassifier binary tanh", scaled(n.MLPClassifier(activation="tanh", **net)), iris, versicolor),
        ("MLPRegressor", n.MLPRegressor(**net), diabetes, progress),
        ("MLPRegressor logistic", n.MLPRegressor(activation="logistic", **net), diabetes, progress),
    ]
    for name, estimator, x, y in estimators:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator.fit(x, y)
        options = {"zipmap": False} if hasattr(estimator, "predict_proba") else {}
        graph = skl2onnx.to_onnx(estimator, x[:1], options=options, target_opset={"": 17, ML: 3})
        # Not on thresholds, where the last bit of a float would decide.
        case(name, graph, x[::15] + np.float32(0.003))


if __name__ == "__main__":
    tree_cases()
    linear_cases()
    network_cases()
    sklearn_cases()
    case_file.write(cases, OUT)
