"""Makes ml_cases.json.gz: graphs of one `ai.onnx.ml` node, inputs, and ONNX Runtime's outputs.

    .venv/bin/python host/backend-lean/tests/make_ml_cases.py

Every operator in every combination of its attributes and of the types it takes, on random inputs
with NaN, infinities, ties and values of no category among them. Seeds are fixed. A case is a JSON
object a line: `name`, `model` (base64), and `inputs` and `outputs` ({`ty`, `shape`, `data` (base64,
little-endian; of strings a list)}), in the node's order.
"""

import base64
import itertools
from pathlib import Path

import case_file
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OUT = Path(__file__).with_name("ml_cases.json.gz")
ML = "ai.onnx.ml"
TYPES = {"float32": "F32", "float64": "F64", "int16": "I16", "int32": "I32", "int64": "I64", "object": "Str"}
ELEMENTS = {
    "F32": TensorProto.FLOAT,
    "F64": TensorProto.DOUBLE,
    "I16": TensorProto.INT16,
    "I32": TensorProto.INT32,
    "I64": TensorProto.INT64,
    "Str": TensorProto.STRING,
}
NUMBERS = (np.float32, np.float64, np.int64, np.int32)
POSTS = ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"]

cases = []


def tensor(array):
    array = np.ascontiguousarray(array) if array.ndim else array
    ty = TYPES[str(array.dtype)]
    if ty == "Str":
        data = [str(s) for s in array.ravel()]
    else:
        data = base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()
    return {"ty": ty, "shape": list(array.shape), "data": data}


def case(name, operator, inputs, outputs=1, version=3, **attributes):
    inputs = [np.asarray(x) for x in inputs]
    names = [f"x{i}" for i in range(len(inputs))]
    results = [f"y{i}" for i in range(outputs)]
    attributes = {k: v for k, v in attributes.items() if not isinstance(v, list) or v}
    node = helper.make_node(operator, names, results, domain=ML, **attributes)
    infos = [
        helper.make_tensor_value_info(n, ELEMENTS[TYPES[str(x.dtype)]], [f"{n}_{a}" for a in range(x.ndim)])
        for n, x in zip(names, inputs)
    ]
    graph = helper.make_graph([node], "g", infos, [helper.make_empty_tensor_value_info(n) for n in results])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, version)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        got = session.run(None, dict(zip(names, inputs)))
    except Exception as e:
        raise SystemExit(f"{name}: {e}") from e
    if operator == "TreeEnsemble":
        # The standard numbers SOFTMAX 1 and LOGISTIC 2, ONNX Runtime the other way round.
        for attribute in node.attribute:
            if attribute.name == "post_transform":
                attribute.i = {1: 2, 2: 1}.get(attribute.i, attribute.i)
        graph.node[0].CopyFrom(node)
    # The recorded model says what its outputs are.
    for info, y in zip(list(graph.output), got):
        axes = [f"{info.name}_{a}" for a in range(y.ndim)]
        info.CopyFrom(helper.make_tensor_value_info(info.name, ELEMENTS[TYPES[str(y.dtype)]], axes))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    cases.append({
        "name": name,
        "model": base64.b64encode(model.SerializeToString()).decode(),
        "inputs": [tensor(x) for x in inputs],
        "outputs": [tensor(y) for y in got],
    })


def numbers(random, dtype, *shape, scale=3.0, odd=True):
    x = random.normal(size=shape) * scale
    if not np.issubdtype(dtype, np.floating):
        return x.round().astype(dtype)
    x = np.where(random.random(shape) < 0.3, x.round(), x)
    if odd:
        x[random.random(shape) < 0.1] = np.nan
        x[random.random(shape) < 0.05] = np.inf
        x[random.random(shape) < 0.05] = -0.0
    return x.astype(dtype)


def floats(random, *shape, scale=1.0):
    return (random.normal(size=shape) * scale).astype(np.float32)


def element_cases():
    random = np.random.default_rng(31)
    for dtype, length, shape in itertools.product(NUMBERS, (1, 3), ((4, 3), (3,), (0, 3))):
        x = numbers(random, dtype, *shape)
        name = f"{np.dtype(dtype)} {length} {shape}"
        case(f"Scaler {name}", "Scaler", [x], offset=floats(random, length), scale=floats(random, length))
    for dtype, norm, shape in itertools.product(NUMBERS, ("MAX", "L1", "L2"), ((5, 3), (1, 1), (2, 17), (0, 3))):
        x = numbers(random, dtype, *shape, odd=False)
        if x.size:
            x[0] = 0
        case(f"Normalizer {norm} {np.dtype(dtype)} {shape}", "Normalizer", [x], norm=norm)
    for threshold, shape in itertools.product((-1.0, 0.0, 0.5, float("inf")), ((4, 3), (5,), (2, 2, 2))):
        x = numbers(random, np.float32, *shape, odd=False)  # of NaN it makes an error
        case(f"Binarizer {threshold} {shape}", "Binarizer", [x], threshold=threshold)
    for replaced, length, shape in itertools.product((float("nan"), 0.0, 1.0), (1, 3), ((6, 3), (3,))):
        x = numbers(random, np.float32, *shape)
        case(f"Imputer {replaced} {length} {shape}", "Imputer", [x],
             imputed_value_floats=floats(random, length).tolist(), replaced_value_float=replaced)
    for replaced, length in itertools.product((0, -1), (1, 3)):
        x = numbers(random, np.int64, 6, 3)
        case(f"Imputer int64 {replaced} {length}", "Imputer", [x],
             imputed_value_int64s=[7, 8, 9][:length], replaced_value_int64=replaced)


def one_hot_cases():
    random = np.random.default_rng(32)
    for dtype, zeros, shape in itertools.product((np.int64, np.float32, np.float64), (0, 1), ((4, 2), (5,), (0, 2))):
        x = numbers(random, dtype, *shape, odd=False)
        categories = [3, -2, 0, 1] if zeros else list(range(-12, 13))
        case(f"OneHotEncoder {np.dtype(dtype)} zeros={zeros} {shape}", "OneHotEncoder", [x], cats_int64s=categories, zeros=zeros)
    x = np.array([[2, 2], [1, 9]])
    case("OneHotEncoder repeated", "OneHotEncoder", [x], cats_int64s=[2, 1, 2])
    x = np.array([["b", "a"], ["", "d"]], object)
    case("OneHotEncoder strings", "OneHotEncoder", [x], cats_strings=["a", "b", "c", ""])
    case("OneHotEncoder strings known", "OneHotEncoder", [x], cats_strings=["a", "b", "c", "", "d"], zeros=0)


def label_cases():
    random = np.random.default_rng(33)
    strings = np.array([["b", "a"], ["zz", ""]], object)
    for x in (strings, np.array([[0, 1], [-1, 3]])):
        case(f"LabelEncoder 1 {x.dtype}", "LabelEncoder", [x], version=1, classes_strings=["a", "b", "a", ""],
             default_string="none", default_int64=-7)
    lists = {"strings": ["a", "b", "", "a"], "int64s": [3, -1, 0, 3], "floats": [0.5, float("nan"), 0.0, 0.5]}
    inputs = {
        "strings": strings,
        "int64s": np.array([[3, 4], [0, -1]]),
        "floats": np.array([[0.5, np.nan], [-0.0, np.inf]], np.float32),
    }
    defaults = {"strings": {"default_string": "?"}, "int64s": {"default_int64": 99}, "floats": {"default_float": 2.5}}
    for version, (key, value) in itertools.product((2, 3, 4), itertools.product(lists, lists)):
        if version < 4 and key == value:
            continue  # since 4
        for default in (False, True):
            attributes = {f"keys_{key}": lists[key], f"values_{value}": lists[value]} | (defaults[value] if default else {})
            case(f"LabelEncoder {version} {key} {value} default={default}", "LabelEncoder", [inputs[key]], version=version, **attributes)
    x = np.array([[0.5, np.nan, -0.0], [np.inf, 7, 0.5]])
    as_tensor = lambda name, values, dtype: numpy_helper.from_array(np.asarray(values, dtype), name)
    wide = {"strings": object, "int64s": np.int64, "floats": np.float32, "doubles": np.float64}
    lists["doubles"], inputs["doubles"] = lists["floats"], x
    for key, value in itertools.product(wide, wide):
        if (key, value) in (("doubles", "int64s"), ("doubles", "floats"), ("int64s", "doubles"), ("floats", "doubles")):
            continue  # ONNX Runtime has no kernel
        one = {"strings": "?", "int64s": 99, "floats": 2.5, "doubles": 2.5}[value]
        case(f"LabelEncoder tensors {key} {value}", "LabelEncoder", [inputs[key]], version=4,
             keys_tensor=as_tensor("k", lists[key], wide[key]), values_tensor=as_tensor("v", lists[value], wide[value]),
             default_tensor=as_tensor("d", [one], wide[value]))
    case("LabelEncoder strings int16", "LabelEncoder", [strings], version=4,
         keys_tensor=as_tensor("k", lists["strings"], object), values_tensor=as_tensor("v", [5, 6, 7, 8], np.int16),
         default_tensor=as_tensor("d", [9], np.int16))


def selection_cases():
    random = np.random.default_rng(34)
    indices = [np.array([[2, 0]]), np.array([1]), np.array([0, 0, 2, 1])]
    for dtype, shape, y in itertools.product((*NUMBERS, object), ((4, 3), (3,), (2, 2, 3)), indices):
        x = numbers(random, np.int64, *shape).astype(dtype) if dtype is object else numbers(random, dtype, *shape)
        x = np.vectorize(str, otypes=[object])(x) if dtype is object else x
        case(f"ArrayFeatureExtractor {np.dtype(dtype)} {shape} {y.tolist()}", "ArrayFeatureExtractor", [x, y])
    for dtype, sizes in itertools.product(NUMBERS, ([2, 3], [1, 4], [0, 2])):
        xs = [numbers(random, dtype, 4, 2), numbers(random, dtype, 4, 3)]
        case(f"FeatureVectorizer {np.dtype(dtype)} {sizes}", "FeatureVectorizer", xs, inputdimensions=sizes)
    xs = [numbers(random, np.float32, 2), numbers(random, np.float32, 3)]
    case("FeatureVectorizer rows", "FeatureVectorizer", xs, inputdimensions=[2, 3])


def linear_cases():
    random = np.random.default_rng(35)
    for post, targets in itertools.product(POSTS, (1, 3)):
        for intercepts in (0, targets):
            name = f"LinearRegressor {post} {targets} intercepts={intercepts}"
            case(name, "LinearRegressor", [floats(random, 6, 4)], targets=targets, post_transform=post,
                 coefficients=(floats(random, 4 * targets) / 4).tolist(), intercepts=(floats(random, intercepts) / 4 + 0.5).tolist())
    labels = {"classlabels_ints": [4, 7, 9], "classlabels_strings": ["a", "b", "c"]}
    for post, scores, dtype, (kind, names) in itertools.product(POSTS, (1, 2, 3), NUMBERS, labels.items()):
        if post == "PROBIT" and scores == 1 or dtype is not np.float32 and (post != "NONE" or scores == 2):
            continue
        x = numbers(random, dtype, 6, 4, scale=2, odd=False)
        case(f"LinearClassifier {post} {scores} {np.dtype(dtype)} {kind}", "LinearClassifier", [x], 2, post_transform=post,
             coefficients=floats(random, 4 * scores).tolist(), intercepts=floats(random, scores).tolist(), **{kind: names[: max(scores, 2)]})
    case("LinearRegressor one row", "LinearRegressor", [floats(random, 4)], targets=2, coefficients=floats(random, 8).tolist())


def svm_cases():
    random = np.random.default_rng(36)
    kernels = [("LINEAR", [0.5, 0.1, 3]), ("POLY", [0.5, 0.1, 2]), ("POLY", [0.3, 0.5, 3]), ("POLY", [0.1, 3, 1.5]), ("RBF", [0.4, 0, 0]), ("SIGMOID", [0.2, 0.1, 0])]
    for (kernel, params), one_class, dims in itertools.product(kernels, (0, 1), (3, 11)):
        case(f"SVMRegressor {kernel} {params} one_class={one_class} {dims}", "SVMRegressor", [floats(random, 6, dims)],
             kernel_type=kernel, kernel_params=params, n_supports=7, support_vectors=floats(random, 7 * dims).tolist(),
             coefficients=floats(random, 7).tolist(), rho=[0.25], one_class=one_class)
    for one_class in (0, 1):
        case(f"SVMRegressor linear one_class={one_class}", "SVMRegressor", [floats(random, 6, 3)], kernel_type="RBF",
             kernel_params=[0.4, 0, 0], n_supports=0, coefficients=floats(random, 3).tolist(), rho=[0.25], one_class=one_class)
    names = {"classlabels_ints": [4, 7, 9, 11], "classlabels_strings": ["a", "b", "c", "d"]}
    for (kernel, params), post, classes, proba, (kind, labels) in itertools.product(kernels, POSTS, (2, 3, 4), (0, 1), names.items()):
        if post == "PROBIT" and classes == 2 and not proba:
            continue  # ONNX Runtime leaves an output unwritten
        if (kernel != "RBF" and (post != "NONE" or kind != "classlabels_ints")) or (post != "NONE" and kind != "classlabels_ints"):
            continue
        counts = random.integers(1, 5, classes)
        vectors, pairs = int(counts.sum()), classes * (classes - 1) // 2
        probabilities = {"prob_a": (-1 - random.random(pairs)).tolist(), "prob_b": floats(random, pairs).tolist()} if proba else {}
        case(f"SVMClassifier {kernel} {params} {post} {classes} proba={proba} {kind}", "SVMClassifier", [floats(random, 8, 3)], 2,
             kernel_type=kernel, kernel_params=params, vectors_per_class=counts.tolist(), post_transform=post,
             support_vectors=floats(random, vectors * 3).tolist(), coefficients=floats(random, vectors * (classes - 1)).tolist(),
             rho=floats(random, pairs).tolist(), **probabilities, **{kind: labels[:classes]})
    for dtype in NUMBERS[1:]:
        x = numbers(random, dtype, 8, 3, odd=False)
        case(f"SVMClassifier {np.dtype(dtype)}", "SVMClassifier", [x], 2, kernel_type="RBF", kernel_params=[0.1, 0, 0],
             vectors_per_class=[2, 1, 2], support_vectors=floats(random, 15, scale=3).tolist(), coefficients=floats(random, 10).tolist(),
             rho=floats(random, 3).tolist(), classlabels_ints=[1, 2, 3])
    for post, classes, positive, proba in itertools.product(POSTS, (2, 3), (0, 1), (0, 1)):
        if proba and post != "NONE":
            continue
        coefficients = floats(random, 3 * classes)
        probabilities = {"prob_a": [-1.0], "prob_b": [0.0]} if proba else {}
        case(f"SVMClassifier linear {post} {classes} positive={positive} proba={proba}", "SVMClassifier", [floats(random, 12, 3)], 2,
             kernel_type="LINEAR", kernel_params=[0.0, 0.0, 0.0], post_transform=post, coefficients=(abs(coefficients) if positive else coefficients).tolist(),
             rho=[0.1], classlabels_ints=[4, 7, 9][:classes], **probabilities)


MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]


def trees(random, targets, modes, dtype, missing, shared=False, depth=3, count=3):
    """The lists of `TreeEnsemble`, and for those of old modes the trees as nested tuples."""
    a = {k: [] for k in "featureids modes splits truenodeids trueleafs falsenodeids falseleafs missing".split()}
    roots, ids, weights, sets = [], [], [], []

    def leaf():
        if shared and ids and random.random() < 0.3:
            return int(random.integers(len(ids)))
        ids.append(int(random.integers(targets)))
        weights.append(random.normal())
        return len(ids) - 1

    def branch(room):
        index = len(a["modes"])
        for k in a:
            a[k].append(0)
        mode = int(random.choice(modes))
        a["modes"][index] = mode
        a["featureids"][index] = int(random.integers(3))
        a["splits"][index] = random.integers(-4, 5) / 4
        a["missing"][index] = int(missing and random.random() < 0.5)
        if mode == 6:
            sets.append((index, random.choice(np.arange(1, 5), int(random.integers(1, 4)), replace=False).tolist()))
        for side in ("true", "false"):
            is_leaf = room == 0 or random.random() < 0.25
            a[f"{side}leafs"][index] = int(is_leaf)
            a[f"{side}nodeids"][index] = leaf() if is_leaf else branch(room - 1)
        return index

    for _ in range(count):
        roots.append(branch(depth - 1))
    sets = [s for _, s in sorted(sets)]
    tensor_of = lambda name, values: numpy_helper.from_array(np.asarray(values, dtype), name)
    attributes = {
        "nodes_featureids": a["featureids"],
        "nodes_modes": numpy_helper.from_array(np.asarray(a["modes"], np.uint8), "modes"),
        "nodes_splits": tensor_of("splits", a["splits"]),
        "nodes_truenodeids": a["truenodeids"],
        "nodes_trueleafs": a["trueleafs"],
        "nodes_falsenodeids": a["falsenodeids"],
        "nodes_falseleafs": a["falseleafs"],
        "tree_roots": roots,
        "leaf_targetids": ids,
        "leaf_weights": tensor_of("weights", weights),
        "n_targets": targets,
    }
    if missing:
        attributes["nodes_missing_value_tracks_true"] = a["missing"]
    if sets:
        flat = [x for s in sets for x in (*s, float("nan"))]
        attributes["membership_values"] = tensor_of("sets", flat)
    return attributes


def grid(random, dtype, rows=12, nan=False):
    x = random.integers(-4, 5, size=(rows, 3)) / 4
    if nan:
        x[random.random(x.shape) < 0.3] = np.nan
    return x.astype(dtype)


def ensemble_cases():
    random = np.random.default_rng(37)
    for aggregate, targets, dtype, missing in itertools.product(range(4), (1, 3), (np.float32, np.float64), (0, 1)):
        for modes in ([0], range(6), range(7), [6]):
            scale = dtype(4 if 6 in modes else 1)  # ONNX Runtime's sets are of small integers
            case(f"TreeEnsemble {aggregate} {targets} {np.dtype(dtype)} missing={missing} {list(modes)}", "TreeEnsemble",
                 [grid(random, dtype, nan=missing) * scale], version=5, aggregate_function=aggregate, post_transform=0,
                 **trees(random, targets, list(modes), dtype, missing))
    for post, targets in itertools.product(range(5), (1, 3)):
        case(f"TreeEnsemble post={post} {targets}", "TreeEnsemble", [grid(random, np.float32)], version=5,
             aggregate_function=1, post_transform=post, **trees(random, targets, range(6), np.float32, 0))
    for seed in range(3):
        case(f"TreeEnsemble shared leaves {seed}", "TreeEnsemble", [grid(random, np.float32)], version=5,
             aggregate_function=1, post_transform=0, **trees(random, 2, [0, 3], np.float32, 0, shared=True))


def old_trees(random, prefix, targets, votes=1):
    a = {k: [] for k in "treeids nodeids featureids modes values truenodeids falsenodeids".split()}
    leaves = {k: [] for k in "treeids nodeids ids weights".split()}
    for tree in range(3):
        for node in range(7):
            inner = node < 3
            for k, v in {"treeids": tree, "nodeids": node, "featureids": int(random.integers(3)) if inner else 0,
                         "modes": str(random.choice(MODES)) if inner else "LEAF", "values": float(random.integers(-4, 5)) / 4 if inner else 0.0,
                         "truenodeids": 2 * node + 1 if inner else 0, "falsenodeids": 2 * node + 2 if inner else 0}.items():
                a[k].append(v)
            for target in range(targets) if votes else [0]:
                if not inner:
                    for k, v in {"treeids": tree, "nodeids": node, "ids": target, "weights": float(np.float32(random.normal()))}.items():
                        leaves[k].append(v)
    return {f"nodes_{k}": v for k, v in a.items()} | {f"{prefix}_{k}": v for k, v in leaves.items()}


def old_tree_cases():
    random = np.random.default_rng(38)
    for dtype, post in itertools.product((np.float32, np.float64), POSTS):
        case(f"TreeEnsembleRegressor {np.dtype(dtype)} {post}", "TreeEnsembleRegressor", [grid(random, dtype)], n_targets=2,
             post_transform=post, **old_trees(random, "target", 2))
    for dtype, classes, kind in itertools.product(NUMBERS, (2, 3), ("int64s", "strings")):
        x = grid(random, np.float64) * 4 if np.issubdtype(dtype, np.integer) else grid(random, dtype)
        for votes in (0, 1):
            if votes == 0 and classes == 3:
                continue
            labels = ["a", "b", "c"] if kind == "strings" else [4, 7, 9]
            case(f"TreeEnsembleClassifier {np.dtype(dtype)} {classes} {kind} votes={votes}", "TreeEnsembleClassifier", [x.astype(dtype)], 2,
                 **{f"classlabels_{kind}": labels[:classes]}, **old_trees(random, "class", classes, votes))


if __name__ == "__main__":
    element_cases()
    one_hot_cases()
    label_cases()
    selection_cases()
    linear_cases()
    svm_cases()
    ensemble_cases()
    old_tree_cases()
    case_file.write(cases, OUT)
