"""ONNX Runtime on the models and inputs of inference.rs: microseconds per call, on one thread.

    .venv/bin/python host/backend-lean/benches/ort.py

`run` is the time of a call from Python. `binding` excludes the conversion of arrays, and is closest to the
time of a native call. Both are the best of 40 repetitions.
"""

import time
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, save

ROOT = Path(__file__).resolve().parents[3]
MLP = ROOT / "target/lean-bench/mlp-64-128-64.onnx"
FOREST = ROOT / "target/lean-bench/forest-100-deep.onnx"


def write(path, nodes, initializers, shape, result):
    """A graph from `x`, of `shape` with a free batch before it, to `y`."""
    info = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *tail])
        for name, tail in (("x", shape), ("y", result))
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in initializers.items()]
    graph = helper.make_graph(nodes, path.stem, info[:1], info[1:], constants)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def weights(random, *shape):
    """Small enough for the values to neither vanish nor explode."""
    scale = np.sqrt(np.prod(shape[1:], dtype=float))
    return (random.normal(size=shape) / scale).astype(np.float32)


def dense(value, sizes, random, constants):
    """Layers of `sizes`, Relu between them; the last value is `dense`."""
    nodes = []
    for layer, (inputs, outputs) in enumerate(zip(sizes, sizes[1:])):
        if layer:
            nodes.append(helper.make_node("Relu", [value], [f"relu{layer}"]))
            value = f"relu{layer}"
        constants[f"w{layer}"] = weights(random, outputs, inputs)
        constants[f"b{layer}"] = random.normal(size=outputs).astype(np.float32)
        result = "dense" if layer == len(sizes) - 2 else f"gemm{layer}"
        operands = [value, f"w{layer}", f"b{layer}"]
        nodes.append(helper.make_node("Gemm", operands, [result], transB=1))
        value = result
    return nodes


def make_mlp():
    constants = {}
    nodes = dense("x", (64, 128, 64), np.random.default_rng(0), constants)
    nodes.append(helper.make_node("Identity", ["dense"], ["y"]))
    write(MLP, nodes, constants, [64], [64])


def make_forest():
    """100 trees of 20 features, of unlimited depth: 1.3 MB of nodes, more than the first-level caches."""
    from skl2onnx import to_onnx
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier

    x, y = make_classification(5000, 20, n_informative=12, n_classes=4, flip_y=0.1, random_state=0)
    forest = RandomForestClassifier(100, random_state=0).fit(x.astype(np.float32), y)
    options = {"zipmap": False}
    model = to_onnx(forest, x[:1].astype(np.float32), options=options, target_opset={"": 17, "ai.onnx.ml": 3})
    FOREST.write_bytes(model.SerializeToString())
    print("nodes of the deep forest:", sum(e.tree_.node_count for e in forest.estimators_))


def rows_of(number, rows, tail):
    """Input `number` of inference.rs: values between -4 and 4 with a period of 997."""
    count = rows * int(np.prod(tail))
    i = np.arange(count, dtype=np.int64) + number * count
    return ((i * 7919 % 997).astype(np.float32) / 997 * 8 - 4).reshape(rows, *tail)


def best(calls, repetitions=40):
    """Different calls in turn: branch prediction would learn a repeated one."""
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        for call in calls:
            call()
        times.append((time.perf_counter() - start) / len(calls))
    return min(times) * 1e6


def measure(path, tail, batch=30, number=256):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feature = session.get_inputs()[0].name
    for rows in (1, batch):
        inputs = [rows_of(i, rows, tail) for i in range(number)]
        bindings = []
        for x in inputs:
            binding = session.io_binding()
            binding.bind_cpu_input(feature, x)
            for output in session.get_outputs():
                binding.bind_output(output.name)
            bindings.append(binding)
        run = best([lambda x=x: session.run(None, {feature: x}) for x in inputs])
        bound = best([lambda b=b: session.run_with_iobinding(b) for b in bindings])
        print(f"{path.parent.name}/{path.stem}/{rows}: run {run:.2f}, binding {bound:.2f}")


if __name__ == "__main__":
    make_mlp()
    make_forest()
    measure(ROOT / "models/iris-classifier/1/model.onnx", [4])
    measure(ROOT / "models/iris-classifier/2/model.onnx", [4])
    measure(FOREST, [20])
    measure(MLP, [64])
