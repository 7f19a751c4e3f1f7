"""Shapes and types: indices, free and empty axes, data-dependent shapes, branches, strings."""

import numpy as np
from onnx import TensorProto, helper
from onnx.helper import make_node as node

from kind import F32, ML, f32, kind, one, output_info, texts, waves


def declare():
    for group in [indices, shapes, data_dependent_shapes, logic, strings]:
        group()


def indices():
    table = {"E": waves(5, 3)}
    far = np.array([2, 5])
    gather = [node("Gather", ["E", "x"], ["y"], axis=0)]
    kind(
        "gather",
        "an embedding; negative indices count from the end",
        gather,
        {"x": (["n"], np.array([0, 4, -1, -5]))},
        {"y": ["n", 3]},
        table,
    )
    kind(
        "gather-beyond",
        "an index beyond the table",
        gather,
        {"x": (["n"], far)},
        {"y": ["n", 3]},
        table,
        want="400",
    )
    kind(
        "gather-before",
        "an index before the table",
        gather,
        {"x": (["n"], np.array([-6]))},
        {"y": ["n", 3]},
        table,
        want="400",
    )
    kind(
        "gather-elements-beyond",
        "GatherElements with an index beyond the table",
        [node("GatherElements", ["E", "x"], ["y"], axis=1)],
        {"x": ([5, "k"], np.full((5, 2), 3))},
        {"y": [5, "k"]},
        table,
        want="400",
    )
    kind(
        "gather-nd-beyond",
        "GatherND with an index beyond the table",
        [node("GatherND", ["E", "x"], ["y"])],
        {"x": (["n", 2], np.array([[0, 1], [1, 3]]))},
        {"y": ["n"]},
        table,
        want="400",
    )
    kind(
        "scatter-nd-beyond",
        "ScatterND with an index beyond the table",
        [node("ScatterND", ["E", "x", "u"], ["y"])],
        {"x": (["n", 1], np.array([[9]])), "u": (["n", 3], f32([[1, 2, 3]]))},
        {"y": [5, 3]},
        table,
        want="400",
    )
    kind(
        "scatter-elements-beyond",
        "ScatterElements with an index beyond the table",
        [node("ScatterElements", ["E", "x", "u"], ["y"], axis=0)],
        {"x": ([1, 3], np.array([[0, 7, 1]])), "u": ([1, 3], f32([[1, 2, 3]]))},
        {"y": [5, 3]},
        table,
        want="400",
    )
    kind(
        "scatter-nd-add",
        "a reduction for equal indices",
        [node("ScatterND", ["E", "x", "u"], ["y"], reduction="add")],
        {"x": (["n", 1], np.array([[1], [1]])), "u": (["n", 3], f32([[1, 2, 3], [10, 20, 30]]))},
        {"y": [5, 3]},
        table,
        opset=16,
    )
    kind(
        "gather-nd-batches",
        "batch_dims",
        [node("GatherND", ["x", "i"], ["y"], batch_dims=1)],
        {"x": (["n", 3, 2], waves(2, 3, 2)), "i": (["n", 1], np.array([[2], [0]]))},
        {"y": ["n", 2]},
    )
    kind(
        "one-hot",
        "an index beyond the depth is a row of zeros",
        [node("OneHot", ["x", "depth", "values"], ["y"])],
        {"x": (["n"], np.array([0, 2, -1, 9]))},
        {"y": ["n", 3]},
        {"depth": np.array(3), "values": f32(0, 1)},
    )
    kind(
        "top-k-beyond",
        "more elements than the axis has",
        [node("TopK", ["x", "k"], ["y", "i"])],
        {"x": (["n", 3], waves(2, 3)), "k": ([1], np.array([4]))},
        {"y": ["n", None], "i": (["n", None], TensorProto.INT64)},
        want="400",
    )


def shapes():
    weights = {"P": f32([[0.5, 0.25, 0.125, 0.0625]])}
    wide = {"x": (["n", "l"], waves(1, 6))}
    kind(
        "add-does-not-fit",
        "a width that does not match for Add",
        [node("Add", ["x", "P"], ["y"])],
        wide,
        {"y": ["n", "l"]},
        weights,
        want="400",
    )
    kind(
        "matmul-does-not-fit",
        "a width that does not match for MatMul",
        [node("MatMul", ["x", "W"], ["y"])],
        wide,
        {"y": ["n", 2]},
        {"W": waves(4, 2)},
        want="400",
    )
    kind(
        "reshape-does-not-fit",
        "a size that Reshape cannot use",
        [node("Reshape", ["x", "s"], ["y"])],
        wide,
        {"y": [None, 4]},
        {"s": np.array([-1, 4])},
        want="400",
    )
    kind(
        "concat-does-not-fit",
        "inputs that do not match each other",
        [node("Concat", ["x", "z"], ["y"], axis=1)],
        {"x": (["n", 2], waves(3, 2)), "z": (["m", 2], waves(4, 2))},
        {"y": ["n", 4]},
        want="400",
    )
    kind(
        "positions-too-long",
        "a row longer than the table of positions",
        [
            node("Shape", ["x"], ["s"], start=1, end=2),
            node("Slice", ["P", "o", "s", "a"], ["p"]),
            node("Add", ["x", "p"], ["y"]),
        ],
        wide,
        {"y": ["n", "l"]},
        weights | {"o": np.array([0]), "a": np.array([1])},
        want="400",
    )
    kind(
        "conv-smaller-than-kernel",
        "an image smaller than the kernel",
        [node("Conv", ["x", "w"], ["y"])],
        {"x": (["n", 1, "h", "w"], waves(1, 1, 2, 2))},
        {"y": ["n", 1, None, None]},
        {"w": waves(1, 1, 3, 3)},
        want="400",
    )
    kind(
        "two-free-axes",
        "any number of rows and columns",
        [
            node("Transpose", ["x"], ["t"], perm=[1, 0]),
            node("MatMul", ["x", "t"], ["y"]),
            node("Shape", ["x"], ["size"]),
        ],
        {"x": (["n", "l"], waves(3, 5))},
        {"y": ["n", None], "size": ([2], TensorProto.INT64)},
    )
    kind(
        "shape-arithmetic",
        "a reshape by the input's own shape",
        [
            node("Shape", ["x"], ["s"], start=0, end=1),
            node("Concat", ["s", "rest"], ["target"], axis=0),
            node("Reshape", ["x", "target"], ["r"]),
            node("ReduceMean", ["r"], ["y"], axes=[1], keepdims=0),
        ],
        {"x": (["n", "l", 2], waves(3, 4, 2))},
        {"y": ["n", 2]},
        {"rest": np.array([-1, 2])},
    )
    kind(
        "batch-is-second",
        "a batch axis that is not the first",
        [node("ReduceMean", ["x"], ["y"], axes=[0], keepdims=0)],
        {"x": ([4, "n", 2], waves(4, 3, 2))},
        {"y": ["n", 2]},
    )
    for name, data in [("ten-thousand", np.ones(10_000, F32)), ("twelve", waves(3, 4))]:
        one(
            "Relu",
            "a fixed first axis is not a batch axis",
            data,
            shape=list(data.shape),
            name=f"fixed-first-axis-{name}",
        )
    kind(
        "scalar",
        "a tensor without axes",
        [node("Mul", ["x", "two"], ["y"])],
        {"x": ([], F32(21))},
        {"y": []},
        {"two": F32(2)},
    )
    empty = np.zeros((0, 4), F32)
    for name, nodes, out, constants in [
        ("relu", [node("Relu", ["x"], ["y"])], ["n", 4], {}),
        ("matmul", [node("MatMul", ["x", "w"], ["y"])], ["n", 2], {"w": waves(4, 2)}),
        ("softmax", [node("Softmax", ["x"], ["y"])], ["n", 4], {}),
        (
            "sum",
            [node("ReduceSum", ["x", "zero"], ["y"], keepdims=0)],
            [4],
            {"zero": np.array([0])},
        ),
        ("concat", [node("Concat", ["x", "w"], ["y"], axis=0)], [None, 4], {"w": waves(2, 4)}),
        (
            "gather",
            [node("Shape", ["x"], ["s"]), node("Cast", ["s"], ["y"], to=TensorProto.FLOAT)],
            [2],
            {},
        ),
    ]:
        kind(
            f"empty-{name}",
            "no rows",
            nodes,
            {"x": (["n", 4], empty)},
            {"y": out},
            constants,
            batches=False,
        )


def data_dependent_shapes():
    boxes = f32([[[0, 0, 1, 1], [0, 0, 1, 0.9], [2, 2, 3, 3], [2, 2, 3, 3.1]]])
    limits = {"m": np.array([10]), "i": f32([0.5]), "s": f32([0.25])}
    suppression = [node("NonMaxSuppression", ["boxes", "scores", "m", "i", "s"], ["selected"])]
    for name, scores in [
        ("nms", [[[0.9, 0.8, 0.7, 0.1]]]),
        ("nms-nothing", [[[0.1, 0.1, 0.1, 0.1]]]),
    ]:
        kind(
            name,
            "as many rows as are found, or none",
            suppression,
            {"boxes": ([1, 4, 4], boxes), "scores": ([1, 1, 4], f32(scores))},
            {"selected": (["k", 3], TensorProto.INT64)},
            limits,
        )
    x = f32([[0, 3, 0], [4, 0, 3]])
    one(
        "NonZero",
        "one column for each nonzero element",
        x,
        out=[2, "k"],
        out_type=TensorProto.INT64,
        name="non-zero",
    )
    kind(
        "unique",
        "sorted, with indices",
        [node("Unique", ["x"], ["y", "i", "j", "c"], sorted=1)],
        {"x": (["n", 3], x)},
        {
            "y": ["k"],
            "i": (["k"], TensorProto.INT64),
            "j": (["m"], TensorProto.INT64),
            "c": (["k"], TensorProto.INT64),
        },
    )
    kind(
        "compress",
        "rows by a condition",
        [node("Compress", ["x", "c"], ["y"], axis=0)],
        {"x": (["n", 3], x), "c": (["n"], np.array([False, True]))},
        {"y": ["k", 3]},
    )
    kind(
        "top-k",
        "the smallest elements of unsorted inputs",
        [node("TopK", ["x", "k"], ["y", "i"], largest=0, axis=1)],
        {"x": (["n", 5], waves(2, 5))},
        {"y": ["n", 2], "i": (["n", 2], TensorProto.INT64)},
        {"k": np.array([2])},
    )
    kind(
        "range",
        "the length is an input",
        [node("Range", ["zero", "x", "step"], ["y"])],
        {"x": ([], np.array(9))},
        {"y": (["k"], TensorProto.INT64)},
        {"zero": np.array(0), "step": np.array(2)},
    )


def logic():
    a, b = np.array([[True, False, True]]), np.array([[True, True, False]])
    truth = TensorProto.BOOL
    for op in ["And", "Or", "Xor"]:
        kind(
            f"{op.lower()}",
            "BOOL in and out",
            [node(op, ["a", "b"], ["y"])],
            {"a": (["n", 3], a), "b": (["n", 3], b)},
            {"y": (["n", 3], truth)},
        )
    kind(
        "mask",
        "a BOOL input beside a number",
        [node("Where", ["m", "x", "zero"], ["y"])],
        {"x": (["n", 3], waves(1, 3)), "m": (["n", 3], a)},
        {"y": ["n", 3]},
        {"zero": F32(0)},
    )
    kind(
        "sequence-inside",
        "a sequence within the graph",
        [node("SequenceConstruct", ["x", "x"], ["s"]), node("SequenceAt", ["s", "one"], ["y"])],
        {"x": (["n", 3], waves(2, 3))},
        {"y": ["n", 3]},
        {"one": np.array(1)},
    )
    kind(
        "sequence-of-outputs",
        "a sequence of two tensors is two outputs",
        [node("Neg", ["x"], ["m"]), node("SequenceConstruct", ["x", "m"], ["y"])],
        {"x": (["n", 3], waves(2, 3))},
        {"y": (["n", 3], TensorProto.FLOAT, True)},
    )
    then = helper.make_graph([node("Neg", ["x"], ["t"])], "then", [], [output_info("t", ["n", 3])])
    other = helper.make_graph([node("Abs", ["x"], ["e"])], "else", [], [output_info("e", ["n", 3])])
    kind(
        "if",
        "a branch that depends on the data",
        [
            node("ReduceSum", ["x"], ["s"], keepdims=0),
            node("Greater", ["s", "zero"], ["c"]),
            node("If", ["c"], ["y"], then_branch=then, else_branch=other),
        ],
        {"x": (["n", 3], waves(2, 3))},
        {"y": ["n", 3]},
        {"zero": F32(0)},
    )
    truth_info = helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("Mul", ["v", "two"], ["w"])],
        "body",
        [
            truth_info("i", TensorProto.INT64, []),
            truth_info("go", truth, []),
            output_info("v", ["n", 3]),
        ],
        [truth_info("on", truth, []), output_info("w", ["n", 3])],
    )
    kind(
        "loop",
        "the number of iterations is an input",
        [node("Loop", ["k", "", "x"], ["y"], body=body)],
        {"x": (["n", 3], waves(2, 3)), "k": ([], np.array(4))},
        {"y": ["n", 3]},
        {"two": F32(2)},
    )
    step = helper.make_graph(
        [node("Add", ["total", "row"], ["sum"]), node("Identity", ["sum"], ["seen"])],
        "step",
        [output_info("total", [3]), output_info("row", [3])],
        [output_info("sum", [3]), output_info("seen", [3])],
    )
    kind(
        "scan",
        "row by row",
        [node("Scan", ["start", "x"], ["last", "y"], body=step, num_scan_inputs=1)],
        {"x": (["n", 3], waves(2, 3))},
        {"last": [3], "y": ["n", 3]},
        {"start": np.zeros(3, F32)},
    )


def strings():
    text = TensorProto.STRING
    words = texts(["red", "green"], ["", "blå"], ["red", "日本"])
    kind(
        "string-identity",
        "strings in and out",
        [node("Identity", ["x"], ["y"])],
        {"x": (["n", 2], words)},
        {"y": (["n", 2], text)},
    )
    kind(
        "string-concat",
        "joined, element by element",
        [node("StringConcat", ["x", "tail"], ["y"])],
        {"x": (["n", 2], words)},
        {"y": (["n", 2], text)},
        {"tail": texts("-a", "-b")},
        opset=20,
    )
    kind(
        "string-equal",
        "compared",
        [node("Equal", ["x", "red"], ["y"])],
        {"x": (["n", 2], words)},
        {"y": (["n", 2], TensorProto.BOOL)},
        {"red": texts("red", "red")},
        opset=19,
    )
    kind(
        "string-gather",
        "a label by its index",
        [node("Gather", ["labels", "x"], ["y"])],
        {"x": (["n"], np.array([2, 0, 1]))},
        {"y": (["n"], text)},
        {"labels": texts("low", "middle", "høy")},
    )
    kind(
        "string-gather-beyond",
        "a label by an index beyond the table",
        [node("Gather", ["labels", "x"], ["y"])],
        {"x": (["n"], np.array([3]))},
        {"y": (["n"], text)},
        {"labels": texts("low", "middle", "high")},
        want="400",
    )
    kind(
        "string-match",
        "a regular expression",
        [node("RegexFullMatch", ["x"], ["y"], pattern="r.d|.+n")],
        {"x": (["n", 2], words)},
        {"y": (["n", 2], TensorProto.BOOL)},
        opset=20,
    )
    kind(
        "string-split",
        "as many parts as in the longest string",
        [node("StringSplit", ["x"], ["y", "count"], delimiter=",")],
        {"x": (["n"], texts("a,b", "", "x,y,z"))},
        {"y": (["n", "k"], text), "count": (["n"], TensorProto.INT64)},
        opset=20,
        batches=False,
    )
    encode = lambda **attributes: [
        node("LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", **attributes)
    ]
    kind(
        "label-encoder",
        "strings to numbers, unknown ones to the default",
        encode(keys_strings=["red", "green"], values_floats=[1.5, 2.5], default_float=-1.0),
        {"x": (["n", 2], words)},
        {"y": ["n", 2]},
        opset=ML,
    )
    kind(
        "label-decoder",
        "a number to a string",
        encode(keys_int64s=[1, 2], values_strings=["uma", "duas"], default_string="?"),
        {"x": (["n"], np.array([2, 1, 7]))},
        {"y": (["n"], text)},
        opset=ML,
    )
    kind(
        "category-mapper",
        "a string to an index",
        [
            node(
                "CategoryMapper",
                ["x"],
                ["y"],
                domain="ai.onnx.ml",
                cats_int64s=[10, 20],
                cats_strings=["red", "green"],
                default_int64=-1,
            )
        ],
        {"x": (["n", 2], words)},
        {"y": (["n", 2], TensorProto.INT64)},
        opset=ML,
    )
    kind(
        "one-hot-encoder",
        "unknown categories are zeros",
        [
            node(
                "OneHotEncoder",
                ["x"],
                ["y"],
                domain="ai.onnx.ml",
                cats_strings=["red", "green"],
                zeros=1,
            )
        ],
        {"x": (["n"], texts("red", "mauve", "green"))},
        {"y": ["n", 2]},
        opset=ML,
    )
    kind(
        "string-to-number",
        "strings of numbers",
        [node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
        {"x": (["n"], texts("1.5", "-2e3", "7"))},
        {"y": ["n"]},
    )
    kind(
        "string-not-a-number",
        "a string that is not a number",
        [node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
        {"x": (["n"], texts("one"))},
        {"y": ["n"]},
        want="400",
    )
    kind(
        "number-to-string",
        "a number as a string",
        [node("Cast", ["x"], ["y"], to=text)],
        {"x": (["n"], np.array([7, -3]))},
        {"y": (["n"], text)},
    )
    kind(
        "tf-idf",
        "words of a vocabulary, counted",
        [
            node(
                "TfIdfVectorizer",
                ["x"],
                ["y"],
                mode="TFIDF",
                min_gram_length=1,
                max_gram_length=1,
                max_skip_count=0,
                ngram_counts=[0],
                ngram_indexes=[0, 1, 2],
                pool_strings=["red", "green", "blue"],
                weights=[0.5, 2.0, 1.0],
            )
        ],
        {"x": (["n", 2], words)},
        {"y": ["n", 3]},
    )
    kind(
        "string-and-number",
        "one input for each column",
        [
            node(
                "LabelEncoder",
                ["colour"],
                ["c"],
                domain="ai.onnx.ml",
                keys_strings=["red"],
                values_floats=[1.0],
                default_float=0.0,
            ),
            node("Concat", ["c", "weight"], ["y"], axis=1),
        ],
        {
            "colour": (["n", 1], texts(["red"], ["blue"])),
            "weight": (["n", 1], f32([[7], [np.nan]])),
        },
        {"y": ["n", 2]},
        opset=ML,
    )
