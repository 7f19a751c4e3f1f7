"""ONNX Runtime on the models and inputs of inference.rs, one thread, microseconds a call.

    .venv/bin/python host/backend-lean/benches/ort.py

`run` is what a Python caller pays; `binding` leaves out the conversion of arrays, which is nearest
to what a native caller pays. Both are the best of 40 repetitions.
"""

import time
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, save

ROOT = Path(__file__).resolve().parents[3]
MLP = ROOT / "target/lean-bench/mlp-64-128-64.onnx"
FOREST = ROOT / "target/lean-bench/forest-100-deep.onnx"


def make_mlp():
    random = np.random.default_rng(0)
    initializers, nodes, value = [], [], "x"
    for layer, (inputs, outputs) in enumerate([(64, 128), (128, 64)]):
        weight = random.normal(size=(outputs, inputs)).astype(np.float32) / np.sqrt(inputs)
        bias = random.normal(size=outputs).astype(np.float32)
        initializers += [
            numpy_helper.from_array(weight.astype(np.float32), f"w{layer}"),
            numpy_helper.from_array(bias, f"b{layer}"),
        ]
        result = "y" if layer else "gemm"
        nodes.append(helper.make_node("Gemm", [value, f"w{layer}", f"b{layer}"], [result], transB=1))
        if layer == 0:
            nodes.append(helper.make_node("Relu", ["gemm"], ["relu"]))
        value = "relu"
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 64]) for n in "xy"]
    graph = helper.make_graph(nodes, "mlp", info[:1], info[1:], initializers)
    MLP.parent.mkdir(parents=True, exist_ok=True)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), MLP)


def make_forest():
    """100 trees of 20 features, as deep as they grow: 1.3 MB of nodes, beyond the first caches."""
    from skl2onnx import to_onnx
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier

    x, y = make_classification(5000, 20, n_informative=12, n_classes=4, flip_y=0.1, random_state=0)
    forest = RandomForestClassifier(100, random_state=0).fit(x.astype(np.float32), y)
    options = {"zipmap": False}
    model = to_onnx(forest, x[:1].astype(np.float32), options=options, target_opset={"": 17, "ai.onnx.ml": 3})
    FOREST.write_bytes(model.SerializeToString())
    print("nodes of the deep forest:", sum(e.tree_.node_count for e in forest.estimators_))


def rows_of(number, rows, width):
    """Input `number` of inference.rs: values between -4 and 4 that repeat after 997."""
    i = np.arange(rows * width, dtype=np.int64) + number * rows * width
    return ((i * 7919 % 997).astype(np.float32) / 997 * 8 - 4).reshape(rows, width)


def best(calls, repetitions=40):
    """Different calls, in turn: repeating one would let the processor learn its way."""
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        for call in calls:
            call()
        times.append((time.perf_counter() - start) / len(calls))
    return min(times) * 1e6


def measure(name, path, width):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feature = session.get_inputs()[0].name
    for rows in (1, 30):
        inputs = [rows_of(number, rows, width) for number in range(256)]
        bindings = []
        for x in inputs:
            binding = session.io_binding()
            binding.bind_cpu_input(feature, x)
            for output in session.get_outputs():
                binding.bind_output(output.name)
            bindings.append(binding)
        run = best([lambda x=x: session.run(None, {feature: x}) for x in inputs])
        bound = best([lambda b=b: session.run_with_iobinding(b) for b in bindings])
        print(f"{name}/{rows}: run {run:.2f}, binding {bound:.2f}")


if __name__ == "__main__":
    make_mlp()
    make_forest()
    measure("iris-linear", ROOT / "models/iris-classifier/1/model.onnx", 4)
    measure("iris-forest", ROOT / "models/iris-classifier/2/model.onnx", 4)
    measure("forest-100-deep", FOREST, 20)
    measure("mlp-64-128-64", MLP, 64)
