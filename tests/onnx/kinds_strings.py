"""Strings: in and out, operators, encoders, conversions."""

import numpy as np
from onnx import TensorProto
from onnx.helper import make_node as node

from kind import ML, f32, kind, texts


def declare():
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
