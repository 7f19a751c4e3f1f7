"""Layers: recurrent ones, convolutions, poolings, resizes, products."""

import numpy as np
from onnx import TensorProto
from onnx.helper import make_node as node

from kind import F32, I32, I64, f32, kind, one, waves


def declare():
    for group in [recurrent, einsums, windows]:
        group()


GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent():
    hidden, features, steps, rows = 3, 2, 5, 2

    def layer(op, name, what, ways=1, inputs=(), more=None, **attributes):
        constants = {
            "W": waves(ways, GATES[op] * hidden, features, scale=0.6),
            "R": waves(ways, GATES[op] * hidden, hidden, scale=0.5)[..., ::-1].copy(),
        }
        slots = {"B": 3, "lengths": 4, "h0": 5, "c0": 6, "P": 7}
        names = ["x", "W", "R"]
        for key, value in (more or {}).items():
            constants[key] = value
            names += [""] * (slots[key] - len(names)) + [key]
        outputs = ["y", "h", "c"] if op == "LSTM" else ["y", "h"]
        declared = {
            "y": [steps, ways, "n", hidden],
            **{key: [ways, "n", hidden] for key in outputs[1:]},
        }
        data = {"x": ([steps, "n", features], waves(steps, rows, features, scale=2.0))}
        fixed = "lengths" in (more or {}) or "h0" in (more or {})
        if fixed:
            data["x"] = ([steps, rows, features], data["x"][1])
            declared = {
                key: [rows if axis == "n" else axis for axis in axes]
                for key, axes in declared.items()
            }
        kind(
            name,
            what,
            [node(op, names, outputs, hidden_size=hidden, **attributes)],
            data,
            declared,
            constants,
            opset=14,
        )

    for op in GATES:
        low = op.lower()
        for direction, ways in [("forward", 1), ("reverse", 1), ("bidirectional", 2)]:
            layer(
                op,
                f"{low}-{direction}",
                f"{op}, direction={direction}, its batch axis free",
                ways,
                direction=direction,
            )
        layer(op, f"{low}-clip", "`clip` bounds the input of each activation", clip=0.3)
        layer(op, f"{low}-bias", "a bias", more={"B": waves(1, 2 * GATES[op] * hidden)})
        layer(
            op,
            f"{low}-lengths",
            "rows of different lengths",
            more={"lengths": np.array([5, 2], I32)},
        )
        layer(op, f"{low}-initial", "an initial state", more={"h0": waves(1, rows, hidden)})
    layer(
        "LSTM",
        "lstm-activations",
        "activations other than the defaults",
        activations=["HardSigmoid", "Softsign", "Relu"],
    )
    layer(
        "LSTM",
        "lstm-activation-settings",
        "activations with alpha and beta",
        activations=["HardSigmoid", "LeakyRelu", "Tanh"],
        activation_alpha=[0.3, 0.05],
        activation_beta=[0.4],
    )
    layer("LSTM", "lstm-input-forget", "coupled input and forget gates", input_forget=1)
    layer("LSTM", "lstm-peepholes", "peepholes", more={"P": waves(1, 3 * hidden)})
    layer(
        "GRU",
        "gru-activations",
        "activations other than the defaults",
        activations=["HardSigmoid", "Softsign"],
    )
    layer(
        "GRU",
        "gru-linear-before-reset",
        "the form that PyTorch exports",
        linear_before_reset=1,
        more={"B": waves(1, 6 * hidden)},
    )
    layer("RNN", "rnn-relu", "an activation other than the default", activations=["Relu"])
    layer(
        "RNN",
        "rnn-both-affine",
        "an activation for each direction",
        2,
        direction="bidirectional",
        activations=["Affine", "Tanh"],
        activation_alpha=[0.5],
        activation_beta=[0.1],
    )
    kind(
        "lstm-last-only",
        "outputs are optional: only the last state, for any batch",
        [node("LSTM", ["x", "W", "R"], ["", "h"], hidden_size=4)],
        {"x": ([6, "n", 3], waves(6, 2, 3))},
        {"h": [1, "n", 4]},
        {"W": np.full((1, 16, 3), 0.15, F32), "R": np.full((1, 16, 4), -0.2, F32)},
        opset=14,
    )


def einsums():
    for name, equation, shapes, out in [
        ("ellipsis", "...i,ij->...j", [(2, 3, 4), (4, 2)], ["n", 3, 2]),
        ("ellipsis-transposed", "...ij->...ji", [(2, 3, 4)], ["n", 4, 3]),
        ("batched", "bij,bjk->bik", [(2, 3, 4), (2, 4, 5)], ["n", 3, 5]),
        ("rows", "bi,bi->b", [(3, 4), (3, 4)], ["n"]),
        ("outer", "bi,bj->bij", [(2, 3), (2, 4)], ["n", 3, 4]),
        ("summed", "bij->b", [(2, 3, 4)], ["n"]),
    ]:
        names = ["x", "w"][: len(shapes)]
        constant = name == "ellipsis"
        inputs = {
            key: (["n", *shape[1:]], waves(*shape, scale=3))
            for key, shape in zip(names, shapes, strict=True)
            if not (constant and key == "w")
        }
        constants = {"w": waves(*shapes[1])} if constant else None
        kind(
            f"einsum-{name}",
            f"`{equation}`",
            [node("Einsum", names, ["y"], equation=equation)],
            inputs,
            {"y": out},
            constants,
        )
    one(
        "Einsum",
        "the diagonal",
        waves(4, 4),
        shape=[4, 4],
        out=[4],
        name="einsum-diagonal",
        equation="ii->i",
    )


def windows():
    x = waves(2, 2, 7, 8, scale=10)
    free = ["n", 2, None, None]
    for name, op, attributes in [
        ("ceil", "AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
        (
            "ceil-padded",
            "AveragePool",
            {
                "kernel_shape": [3, 3],
                "strides": [2, 2],
                "pads": [1, 1, 1, 1],
                "ceil_mode": 1,
                "count_include_pad": 1,
            },
        ),
        (
            "without-pads",
            "AveragePool",
            {"kernel_shape": [2, 3], "pads": [1, 1, 0, 1], "count_include_pad": 0},
        ),
        ("dilated", "AveragePool", {"kernel_shape": [2, 2], "dilations": [2, 3]}),
        ("same-upper", "AveragePool", {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}),
        ("same-lower", "AveragePool", {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER"}),
        ("ceil", "MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
        ("dilated", "MaxPool", {"kernel_shape": [2, 2], "dilations": [3, 2]}),
        (
            "same-lower",
            "MaxPool",
            {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
        ),
        ("p-three", "LpPool", {"kernel_shape": [2, 2], "p": 3}),
        (
            "p-one-padded",
            "LpPool",
            {"kernel_shape": [3, 3], "p": 1, "pads": [1, 1, 1, 1], "strides": [2, 2]},
        ),
    ]:
        one(
            op,
            "attributes of a pooling",
            x,
            out=free,
            name=f"{op.lower()}-{name}",
            opset=19,
            **attributes,
        )
    one("GlobalLpPool", "p", x, out=["n", 2, 1, 1], name="globallppool", p=3)
    kind(
        "maxpool-indices",
        "indices of the maxima in column-major order",
        [
            node(
                "MaxPool",
                ["x"],
                ["y", "where"],
                kernel_shape=[2, 2],
                strides=[2, 2],
                storage_order=1,
            )
        ],
        {"x": (["n", 2, 7, 8], x)},
        {"y": free, "where": (free, TensorProto.INT64)},
    )
    weights = {"w": waves(4, 1, 3, 3), "b": f32(0.5, -1, 0, 2)}
    for name, attributes in [
        ("same-lower", {"auto_pad": "SAME_LOWER"}),
        ("dilated", {"dilations": [2, 1]}),
        ("strided", {"strides": [2, 3], "pads": [0, 1, 2, 0]}),
    ]:
        one(
            "Conv",
            "attributes of a grouped convolution",
            x,
            out=["n", 4, None, None],
            constants=weights,
            name=f"conv-{name}",
            group=2,
            **attributes,
        )
    for name, attributes in [
        ("output-padding", {"strides": [2, 2], "output_padding": [1, 0]}),
        ("output-shape", {"strides": [2, 2], "output_shape": [15, 16]}),
        ("same-upper", {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        ("dilated", {"dilations": [2, 2], "pads": [1, 0, 0, 1]}),
    ]:
        one(
            "ConvTranspose",
            "attributes of a transposed convolution",
            x,
            out=["n", 6, None, None],
            constants={"w": waves(2, 3, 3, 3)},
            name=f"convtranspose-{name}",
            **({"group": 2} | attributes),
        )
    for mode in ["reflect", "edge", "constant", "wrap"]:
        constants = {"pads": np.array([0, 0, 1, 2, 0, 0, 2, 1], I64)}
        one(
            "Pad",
            f"mode={mode}",
            x,
            out=free,
            constants=constants,
            name=f"pad-{mode}",
            mode=mode,
            opset=19,
        )
    one(
        "Pad",
        "negative pads crop",
        x,
        out=free,
        constants={"pads": np.array([0, 0, -1, -2, 0, 0, 1, 0], I64)},
        name="pad-negative",
    )
    for name, attributes in [
        ("linear", {"mode": "linear"}),
        (
            "align-corners-linear",
            {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        ),
        ("cubic", {"mode": "cubic", "cubic_coeff_a": -0.5}),
        ("nearest-ceil", {"mode": "nearest", "nearest_mode": "ceil"}),
        (
            "asymmetric",
            {
                "mode": "nearest",
                "coordinate_transformation_mode": "asymmetric",
                "nearest_mode": "floor",
            },
        ),
        ("antialias", {"mode": "linear", "antialias": 1}),
    ]:
        kind(
            f"resize-{name}",
            "attributes of a resize",
            [node("Resize", ["x", "", "", "sizes"], ["y"], **attributes)],
            {"x": ([2, 2, 7, 8], x)},
            {"y": [2, 2, 4, 13]},
            {"sizes": np.array([2, 2, 4, 13], I64)},
            opset=18,
        )
