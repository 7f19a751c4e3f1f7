"""digits-classifier: a small convolutional network for handwritten digits of 8x8 pixels."""

from importlib.metadata import version as installed

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import network
from estimator import accuracy
from reference import Case
from version import Trained, Version, finish

SEED = 1
TEST_ROWS = 360
GOLDEN_ROWS = 40
INK = 16.0  # a pixel that is all ink: the dataset counts dots of 4x4
TOLERANCE = 1e-5


def to_onnx(weights, version):
    """`pixels`, rows of 64 from 0 to 16 -> `label`, `probabilities`."""
    constants = {name: value.astype(np.float32) for name, value in weights.items()}
    constants["convolution_1"] /= np.float32(INK)  # exact: a power of two
    constants["picture"] = np.array([-1, 1, 8, 8], np.int64)
    around = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    node = helper.make_node
    nodes = [
        node("Reshape", ["pixels", "picture"], ["pictures"]),
        node("Conv", ["pictures", "convolution_1", "bias_1"], ["first"], **around),
        node("Relu", ["first"], ["first_kept"]),
        node("Conv", ["first_kept", "convolution_2", "bias_2"], ["second"], **around),
        node("Relu", ["second"], ["second_kept"]),
        node("MaxPool", ["second_kept"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["pooled"], ["flat"]),
        node("Gemm", ["flat", "dense", "bias_3"], ["scores"]),
        node("Softmax", ["scores"], ["probabilities"], axis=1),
        node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        version.model,
        [value("pixels", TensorProto.FLOAT, [None, 64])],
        [
            value("label", TensorProto.INT64, [None]),
            value("probabilities", TensorProto.FLOAT, [None, 10]),
        ],
        [numpy_helper.from_array(constant, name) for name, constant in constants.items()],
    )
    return finish(helper.make_model(graph, doc_string=version.description), version)


def train(version):
    pixels, digits = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        pixels.astype(np.float32), digits, test_size=TEST_ROWS, random_state=SEED, stratify=digits
    )
    weights = network.train(train_x.reshape(-1, 8, 8) / INK, train_y, SEED)
    golden = test_x[:GOLDEN_ROWS]
    edge_cases = np.stack([np.zeros(64), np.full(64, INK), np.arange(64) / 4]).astype(np.float32)
    single_rows = np.concatenate([golden, edge_cases])
    return Trained(
        graph=to_onnx(weights, version),
        reference=train_x,
        golden=[Case(batch) for batch in [*single_rows[:, None], golden]],
        tolerance=TOLERANCE,
        metrics=lambda session: accuracy(session, test_x, test_y),
        provenance={
            "dataset": "digits (Alpaydin and Kaynak 1998) as in scikit-learn: 1797 rows, of them "
            f"{1797 - TEST_ROWS} train and {TEST_ROWS} test, stratified, split seed {SEED}",
            "estimator": network.DESCRIPTION,
            "framework": f"numpy {installed('numpy')}",
            "converter": f"onnx {installed('onnx')}",
        },
    )


VERSIONS = [
    Version(
        model="digits-classifier",
        number="1",
        description="Handwritten digits, 8x8 pixels of 0 (paper) to 16 (ink): convolutional network.",
        train=train,
        fields=[f"pixel_{row}_{column}" for row in range(8) for column in range(8)],
        labels=[str(digit) for digit in range(10)],
    )
]
