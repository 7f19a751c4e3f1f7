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


def best(call, repetitions=40, calls=500):
    for _ in range(calls):
        call()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        times.append((time.perf_counter() - start) / calls)
    return min(times) * 1e6


def measure(name, path, width):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feature = session.get_inputs()[0].name
    for rows in (1, 30):
        x = np.resize(np.array([5.1, 3.5, 1.4, 0.2], np.float32), (rows, width))
        binding = session.io_binding()
        binding.bind_cpu_input(feature, x)
        for output in session.get_outputs():
            binding.bind_output(output.name)
        run = best(lambda: session.run(None, {feature: x}))
        bound = best(lambda: session.run_with_iobinding(binding))
        print(f"{name}/{rows}: run {run:.2f}, binding {bound:.2f}")


if __name__ == "__main__":
    make_mlp()
    measure("iris-linear", ROOT / "models/iris-classifier/1/model.onnx", 4)
    measure("iris-forest", ROOT / "models/iris-classifier/2/model.onnx", 4)
    measure("mlp-64-128-64", MLP, 64)
