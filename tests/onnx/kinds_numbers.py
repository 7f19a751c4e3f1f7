"""Numbers: large and missing ones, integers, FP16, quantized ones; activations."""

import numpy as np
from onnx import TensorProto
from onnx.helper import make_node as node

from kind import (
    F16,
    F32,
    F64,
    I32,
    I64,
    ML,
    SMALLEST,
    element_type,
    f32,
    kind,
    one,
    waves,
)


def declare():
    for group in [exponentials, quantized, activations, missing, integers, halves]:
        group()


def exponentials():
    large = f32([[1000, 1001, 999], [-1000, -1001, -999], [0, 1e-3, -1e4]])
    attribute = {"axes": [1], "keepdims": 1}
    one(
        "ReduceLogSumExp",
        "the maximum is subtracted before the exponential",
        large,
        out=["n", 1],
        **attribute,
    )
    one("Softmax", "large inputs of a softmax", large, name="softmax-large")
    one("LogSoftmax", "large inputs of its logarithm", large, name="logsoftmax-large")
    # Up to opset 12 all axes from `axis` on are flattened.
    one(
        "Softmax",
        "before opset 13 softmax flattens all axes from `axis` on",
        waves(2, 3, 4, scale=90),
        name="softmax-flattened",
        axis=1,
        opset=12,
    )
    one(
        "LogSoftmax",
        "before opset 13 its logarithm flattens them too",
        waves(2, 3, 4, scale=90),
        name="logsoftmax-flattened",
        axis=1,
        opset=12,
    )
    one("Softplus", "log(1 + exp(x)) of large x is x", large, name="softplus-large")
    one("Sigmoid", "saturates instead of overflowing", large, name="sigmoid-large")
    one(
        "ReduceL2",
        "the root of a sum of squares",
        large,
        out=["n", 1],
        name="reduce-l2",
        **attribute,
    )
    one(
        "ReduceLogSum",
        "the logarithm of 0 is -inf",
        f32([[0, 0, 0], [1, 2, 3]]),
        out=["n", 1],
        name="reduce-log-sum",
        **attribute,
    )
    one("Exp", "an output that is infinite", f32([[100, 1]]), name="exp-infinite")


def quantized():
    def pair(name, scale, zero, inner, before="x", after="y"):
        return [
            node("QuantizeLinear", [before, scale, zero], [f"{name}-q"]),
            node("DequantizeLinear", [f"{name}-q", scale, zero], [f"{name}-d"]),
            *inner(f"{name}-d", f"{name}-e"),
            node("QuantizeLinear", [f"{name}-e", f"{name}-s", zero], [f"{name}-r"]),
            node("DequantizeLinear", [f"{name}-r", f"{name}-s", zero], [after]),
        ]

    x = f32([[1, 2, 3], [-4, 0.5, 4]])
    for op, scale, attributes in [
        ("Softmax", 1 / 255, {"axis": -1}),
        ("Sigmoid", 1 / 255, {}),
        ("Tanh", 1 / 127, {}),
        ("LeakyRelu", 0.04, {"alpha": 0.2}),
    ]:
        zero = np.int8(0) if op == "Tanh" else np.uint8(100 if op == "LeakyRelu" else 0)
        inner = lambda before, after, op=op, attributes=attributes: [
            node(op, [before], [after], **attributes)
        ]
        name = f"qdq-{op.lower()}"
        constants = {"s": F32(0.04), "z": zero, f"{name}-s": F32(scale)}
        kind(
            name,
            f"{op} between quantize and dequantize pairs",
            pair(name, "s", "z", inner),
            {"x": (["n", 3], x)},
            {"y": ["n", 3]},
            constants,
        )
    kind(
        "qdq-conv-per-channel",
        "weights with a scale for each channel",
        [
            node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
            node("Conv", ["x", "wd"], ["y"], pads=[1, 1, 1, 1]),
        ],
        {"x": (["n", 2, 4, 5], waves(2, 2, 4, 5))},
        {"y": ["n", 3, 4, 5]},
        {
            "w": (np.arange(54) % 17 - 8).astype(np.int8).reshape(3, 2, 3, 3),
            "ws": f32(0.01, 0.1, 2.0),
            "wz": np.zeros(3, np.int8),
        },
    )
    kind(
        "matmul-integer",
        "integers with zero points, accumulated in INT32",
        [node("MatMulInteger", ["x", "w", "xz", "wz"], ["y"])],
        {"x": (["n", 4], np.array([[0, 255, 3, 7], [9, 9, 9, 9]], np.uint8))},
        {"y": (["n", 3], TensorProto.INT32)},
        {"w": np.arange(12).astype(np.uint8).reshape(4, 3), "xz": np.uint8(7), "wz": np.uint8(2)},
    )
    kind(
        "qlinear-matmul",
        "the scales of both operands",
        [node("QLinearMatMul", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["y"])],
        {"x": (["n", 4], np.array([[0, 255, 3, 7], [9, 9, 9, 9]], np.uint8))},
        {"y": (["n", 3], TensorProto.UINT8)},
        {
            "xs": F32(0.02),
            "xz": np.uint8(7),
            "w": np.arange(12).astype(np.uint8).reshape(4, 3),
            "ws": F32(0.1),
            "wz": np.uint8(2),
            "ys": F32(0.3),
            "yz": np.uint8(50),
        },
    )
    kind(
        "dynamic-quantize",
        "the scale is that of the whole batch",
        [node("DynamicQuantizeLinear", ["x"], ["y", "scale", "zero"])],
        {"x": (["n", 3], x)},
        {"y": (["n", 3], TensorProto.UINT8), "scale": [], "zero": ([], TensorProto.UINT8)},
    )


def activations():
    x = f32([[-3, -0.5, 0, 0.5, 3], [-40, -1, 1e-3, 1, 40]])
    for op, attributes in [
        ("Celu", {"alpha": 2.5}),
        ("Elu", {"alpha": 0.4}),
        ("Selu", {"alpha": 1.3, "gamma": 0.7}),
        ("HardSigmoid", {"alpha": 0.3, "beta": 0.6}),
        ("ThresholdedRelu", {"alpha": 0.7}),
        ("Shrink", {"lambd": 0.6, "bias": 0.2}),
        ("LeakyRelu", {"alpha": 0.3}),
        ("HardSwish", {}),
        ("Softsign", {}),
    ]:
        one(
            op,
            "with attributes",
            x,
            name=f"{op.lower()}-attributes" if attributes else op.lower(),
            **attributes,
        )
        if attributes:
            one(op, "with default attributes", x, name=f"{op.lower()}-defaults")
    one("Mish", "large inputs", x, opset=18)
    one("Gelu", "by tanh", x, name="gelu-tanh", approximate="tanh", opset=20)
    one("Gelu", "exact", x, opset=20)
    one("PRelu", "a slope for each column", x, constants={"slope": f32(0.1, 0.2, -0.3, 0.4, 2.0)})
    one("Hardmax", "the first of equal maxima", f32([[1, 3, 3], [0, 0, 0]]), axis=1)
    one("LpNormalization", "p and axis", x, name="lp-normalization", axis=1, p=1)
    one(
        "MeanVarianceNormalization",
        "axes",
        waves(2, 3, 4, 4, scale=50),
        name="mean-variance",
        axes=[0, 2, 3],
        batches=False,
    )
    one(
        "LRN",
        "size, alpha, beta, bias",
        waves(2, 6, 3, 3, scale=9),
        size=3,
        alpha=0.3,
        beta=0.6,
        bias=1.5,
    )


def missing():
    nan, inf = np.nan, np.inf
    x = f32([[nan, 1, -2], [5, nan, nan], [-1, 2, 3]])
    one("Clip", "NaN stays NaN", x, constants={"low": F32(-1), "high": F32(2)}, name="clip-nan")
    for op in ["Max", "Min", "Sum", "Mean"]:
        one(
            op,
            "NaN with a number is NaN",
            x,
            constants={"other": f32(0, 1.5, 10)},
            name=f"{op.lower()}-nan",
        )
    for op in ["ReduceMax", "ReduceMin", "ReduceSum", "ReduceMean", "ReduceProd"]:
        attribute = (
            {"constants": {"axes": np.array([1], I64)}} if op == "ReduceSum" else {"axes": [1]}
        )
        one(
            op,
            "a row with a NaN, as in ONNX Runtime",
            x,
            out=["n", 1],
            name=f"{op.lower()}-nan",
            **attribute,
        )
    for op in [
        "Relu",
        "LeakyRelu",
        "HardSigmoid",
        "Softmax",
        "Abs",
        "Sign",
        "Floor",
        "Round",
        "Sigmoid",
        "Erf",
    ]:
        one(op, "NaN stays NaN", x, name=f"{op.lower()}-nan")
    one("IsNaN", "detects NaN", x, out_type=TensorProto.BOOL, name="isnan")
    one(
        "IsInf",
        "only negative infinities",
        f32([[inf, -inf, nan, 1]]),
        out_type=TensorProto.BOOL,
        name="isinf-negative",
        detect_positive=0,
    )
    one(
        "MaxPool",
        "a window with a NaN, as in ONNX Runtime",
        f32([[[nan, 1, 2, 3, nan]]]),
        out=["n", 1, 4],
        name="maxpool-nan",
        kernel_shape=[2],
    )
    one(
        "CumSum",
        "every element after a NaN",
        x,
        constants={"axis": np.array(1, I64)},
        name="cumsum-nan",
    )
    kind(
        "where-nan",
        "an imputer of single operators",
        [node("IsNaN", ["x"], ["m"]), node("Where", ["m", "fill", "x"], ["y"])],
        {"x": (["n", 3], x)},
        {"y": ["n", 3]},
        {"fill": f32(7, 8, 9)},
    )
    kind(
        "comparison-nan",
        "NaN is not equal to itself",
        [node("Equal", ["x", "x"], ["y"]), node("Less", ["x", "zero"], ["z"])],
        {"x": (["n", 3], x)},
        {"y": (["n", 3], TensorProto.BOOL), "z": (["n", 3], TensorProto.BOOL)},
        {"zero": F32(0)},
    )
    kind(
        "imputer",
        "the missing value is NaN",
        [
            node(
                "Imputer",
                ["x"],
                ["y"],
                domain="ai.onnx.ml",
                imputed_value_floats=[10.0, 20.0, 30.0],
                replaced_value_float=nan,
            )
        ],
        {"x": (["n", 3], x)},
        {"y": ["n", 3]},
        opset=ML,
    )
    one(
        "Div",
        "a division by zero of floating points is infinite",
        f32([[1, -1, 0]]),
        constants={"zero": f32(0, 0, 0)},
        name="div-zero",
    )


def integers():
    def binary(op, name, what, x, d, want="equal", dtype=I64, **attributes):
        of = element_type(np.zeros(1, dtype))
        data = {"x": (["n"], np.array(x, dtype)), "d": (["n"], np.array(d, dtype))}
        kind(
            name,
            what,
            [node(op, ["x", "d"], ["y"], **attributes)],
            data,
            {"y": (["n"], of)},
            want=want,
        )

    binary("Div", "div-integers", "towards zero", [7, -7, 9, -9], [2, 2, -4, -4])
    binary("Mod", "mod-integers", "the sign of the divisor", [7, -7, 7, -7], [3, 3, -3, -3])
    binary(
        "Mod",
        "mod-like-c",
        "fmod=1: the sign of the dividend",
        [7, -7, 7, -7],
        [3, 3, -3, -3],
        fmod=1,
    )
    binary("Pow", "pow-integers", "of integers", [2, -3, 5], [10, 3, 0])
    binary(
        "BitShift",
        "bit-shift",
        "to the right",
        [1024, 255, 3],
        [3, 4, 1],
        dtype=np.uint32,
        direction="RIGHT",
    )
    for dtype in [I64, I32, np.uint8]:
        name = np.dtype(dtype).name
        binary("Div", f"div-by-zero-{name}", "a division by zero", [7, 9], [2, 0], "400", dtype)
        if dtype != np.uint8:
            binary(
                "Mod", f"mod-by-zero-{name}", "a remainder by zero", [7, 9], [2, 0], "400", dtype
            )
    binary(
        "Div", "div-overflow", "the one quotient that INT64 cannot represent", [SMALLEST], [-1], "400"
    )
    binary("Div", "div-overflow-int32", "the one that INT32 cannot represent", [np.iinfo(I32).min], [-1], "400", I32)
    binary("Mod", "mod-overflow", "the remainder of that quotient is 0", [SMALLEST], [-1])
    kind(
        "div-by-computed-zero",
        "a division by a computed zero",
        [node("ReduceSum", ["x"], ["s"], keepdims=0), node("Div", ["t", "s"], ["y"])],
        {"x": (["n"], np.array([3, -3]))},
        {"y": ([], TensorProto.INT64)},
        {"t": np.array(12)},
        want="400",
    )
    kind(
        "division-only",
        "a graph that fails on zeros is accepted",
        [node("Div", ["x", "d"], ["q"]), node("Add", ["q", "x"], ["y"])],
        {"x": (["n"], np.array([7, 100])), "d": (["n"], np.array([2, 3]))},
        {"y": (["n"], TensorProto.INT64)},
    )
    for op, dtype in [
        ("Add", np.int8),
        ("Mul", np.uint16),
        ("Sub", np.int16),
        ("Add", np.uint32),
        ("Mul", np.uint64),
        ("Max", np.int8),
        ("Min", np.uint64),
    ]:
        name = np.dtype(dtype).name
        binary(
            op, f"{op.lower()}-{name}", f"{name} at the edges", [100, 7, 3], [27, 5, 1], dtype=dtype
        )


def halves():
    x = waves(2, 4).astype(F16)
    half = TensorProto.FLOAT16
    kind(
        "f16-gemm",
        "FP16 with a bias",
        [node("Gemm", ["x", "W", "B"], ["y"], alpha=0.5, beta=2.0, transB=1)],
        {"x": (["n", 4], x)},
        {"y": (["n", 3], half)},
        {"W": waves(3, 4).astype(F16), "B": waves(3).astype(F16)},
        rtol=5e-3,
    )
    one("Softmax", "FP16", x, name="f16-softmax", out_type=half, rtol=5e-3)
    one(
        "Conv",
        "FP16",
        waves(2, 2, 5, 5).astype(F16),
        out=["n", 2, 5, 5],
        name="f16-conv",
        out_type=half,
        constants={"w": waves(2, 2, 3, 3).astype(F16)},
        pads=[1, 1, 1, 1],
        rtol=5e-3,
    )
    one(
        "LayerNormalization",
        "FP16",
        x,
        name="f16-layer-norm",
        out_type=half,
        constants={"s": waves(4).astype(F16), "b": waves(4).astype(F16)},
        rtol=5e-3,
    )
    one(
        "Exp",
        "FP16 overflows to infinity",
        np.array([[12, 1, -20]], F16),
        name="f16-exp-infinite",
        out_type=half,
        rtol=5e-3,
    )
    one(
        "Cast",
        "to BF16",
        waves(2, 4, scale=300),
        name="cast-bf16",
        out_type=TensorProto.BFLOAT16,
        to=TensorProto.BFLOAT16,
    )
    one(
        "Cast",
        "FP64 from FP32",
        waves(2, 4, scale=300),
        name="cast-double",
        out_type=TensorProto.DOUBLE,
        to=TensorProto.DOUBLE,
    )
    one(
        "Cast",
        "to INT8, towards zero",
        f32([[1.9, -1.9, 100.5, 0]]),
        name="cast-int8",
        out_type=TensorProto.INT8,
        to=TensorProto.INT8,
    )
    one(
        "MatMul",
        "FP64",
        waves(2, 4, scale=1e6).astype(F64),
        name="double-matmul",
        out=["n", 3],
        out_type=TensorProto.DOUBLE,
        constants={"w": waves(4, 3).astype(F64)},
    )
