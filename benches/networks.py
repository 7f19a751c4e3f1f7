"""Overhead of the host for one inference of a network. `make bench` runs it. Prints Markdown.

The networks are ResNet-18, MobileNetV3-Small, a transformer of MiniLM's size and an LSTM, with random weights. The
generic component serves them.

- Latency: one request after the other over one connection (Open Inference Protocol, binary tensors), compared with
  ONNX Runtime called from Python with bound buffers. Both use one thread and alternate within one run.
- Cold start: for each network, and for iris in lean and in ONNX Runtime, the time from the start of a host to its
  first response, and its resident memory after that.

    target/python/bin/python benches/networks.py --spinfer target/release/spinfer
"""
import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, save

ROOT = Path(__file__).resolve().parent.parent
GENERIC = ROOT / "target/components/wasm32-wasip2/component/generic_model.wasm"


class Network:
    """Builds a graph."""

    def __init__(self, seed=1):
        self.nodes, self.constants, self.random, self.count = [], [], np.random.default_rng(seed), 0

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def weights(self, *shape, fan=None):
        scale = (2.0 / (fan or np.prod(shape[1:]))) ** 0.5
        return self.constant((self.random.standard_normal(shape) * scale).astype(np.float32))

    def op(self, operator, *inputs, outputs=1, **attributes):
        self.count += 1
        names = [f"v{self.count}_{n}" for n in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, name=f"n{self.count}", **attributes))
        return names[0] if outputs == 1 else names

    def conv(self, x, channels, to, kernel, stride=1, groups=1):
        weights = self.weights(to, channels // groups, kernel, kernel)
        bias = self.constant(np.zeros(to, np.float32))
        return self.op("Conv", x, weights, bias, kernel_shape=[kernel] * 2, strides=[stride] * 2,
                       pads=[kernel // 2] * 4, group=groups)

    def dense(self, x, rows, columns):
        y = self.op("MatMul", x, self.weights(rows, columns, fan=rows))
        return self.op("Add", y, self.constant(np.zeros(columns, np.float32)))

    def write(self, path, inputs, output, shape):
        info = [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs]
        self.nodes.append(helper.make_node("Identity", [output], ["output"]))
        out = [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)]
        graph = helper.make_graph(self.nodes, path.stem, info, out, self.constants)
        save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def resnet18(path):
    n = Network()
    x = n.op("Relu", n.conv("input", 3, 64, 7, 2))
    x = n.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for stage, width in enumerate([64, 128, 256, 512]):
        for block in range(2):
            stride = 2 if stage > 0 and block == 0 else 1
            y = n.op("Relu", n.conv(x, channels, width, 3, stride))
            y = n.conv(y, width, width, 3)
            if stride != 1 or channels != width:
                x = n.conv(x, channels, width, 1, stride)
            x, channels = n.op("Relu", n.op("Add", x, y)), width
    x = n.op("Flatten", n.op("GlobalAveragePool", x))
    n.write(path, [("input", TensorProto.FLOAT, ["batch", 3, 224, 224])], n.dense(x, 512, 1000), ["batch", 1000])
    return {"input": np.random.default_rng(2).standard_normal((1, 3, 224, 224)).astype(np.float32)}


def mobilenet_v3(path):
    # Howard et al., Searching for MobileNetV3 (2019), table 2: kernel, expansion, output, squeeze, swish, stride
    blocks = [(3, 16, 16, 1, 0, 2), (3, 72, 24, 0, 0, 2), (3, 88, 24, 0, 0, 1), (5, 96, 40, 1, 1, 2),
              (5, 240, 40, 1, 1, 1), (5, 240, 40, 1, 1, 1), (5, 120, 48, 1, 1, 1), (5, 144, 48, 1, 1, 1),
              (5, 288, 96, 1, 1, 2), (5, 576, 96, 1, 1, 1), (5, 576, 96, 1, 1, 1)]
    n = Network()
    x, channels = n.op("HardSwish", n.conv("input", 3, 16, 3, 2)), 16
    for kernel, wide, to, squeeze, swish, stride in blocks:
        act = "HardSwish" if swish else "Relu"
        y = n.op(act, n.conv(x, channels, wide, 1)) if wide != channels else x
        y = n.op(act, n.conv(y, wide, wide, kernel, stride, wide))
        if squeeze:
            narrow = max(8, wide // 4 // 8 * 8)
            s = n.op("Relu", n.conv(n.op("GlobalAveragePool", y), wide, narrow, 1))
            y = n.op("Mul", y, n.op("HardSigmoid", n.conv(s, narrow, wide, 1), alpha=1 / 6))
        y = n.conv(y, wide, to, 1)
        x, channels = (n.op("Add", x, y) if stride == 1 and channels == to else y), to
    x = n.op("HardSwish", n.conv(x, channels, 576, 1))
    x = n.op("Flatten", n.op("GlobalAveragePool", x))
    x = n.dense(n.op("HardSwish", n.dense(x, 576, 1024)), 1024, 1000)
    n.write(path, [("input", TensorProto.FLOAT, ["batch", 3, 224, 224])], x, ["batch", 1000])
    return {"input": np.random.default_rng(2).standard_normal((1, 3, 224, 224)).astype(np.float32)}


def transformer(path, layers=6, width=384, heads=12, tokens=128, words=30522):
    n = Network()
    ints = lambda *values: n.constant(np.array(values, np.int64))
    norm = lambda x: n.op("LayerNormalization", x, n.constant(np.ones(width, np.float32)),
                          n.constant(np.zeros(width, np.float32)), axis=-1, epsilon=1e-12)
    split, merge = ints(0, 0, heads, width // heads), ints(0, 0, width)
    x = n.op("Gather", n.weights(words, width, fan=width), "input_ids")
    x = norm(n.op("Add", x, n.weights(1, tokens, width, fan=width)))
    mask = n.op("Cast", n.op("Unsqueeze", "attention_mask", ints(1, 2)), to=TensorProto.FLOAT)
    mask = n.op("Mul", n.op("Sub", n.constant(np.float32(1)), mask), n.constant(np.float32(-10000)))
    for _ in range(layers):
        q, k, v = (n.op("Reshape", n.dense(x, width, width), split) for _ in range(3))
        q, v = (n.op("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
        k = n.op("Transpose", k, perm=[0, 2, 3, 1])
        scale = n.constant(np.float32((width // heads) ** -0.5))
        scores = n.op("Add", n.op("Mul", n.op("MatMul", q, k), scale), mask)
        y = n.op("MatMul", n.op("Softmax", scores, axis=-1), v)
        y = n.op("Reshape", n.op("Transpose", y, perm=[0, 2, 1, 3]), merge)
        x = norm(n.op("Add", x, n.dense(y, width, width)))
        h = n.dense(x, width, 4 * width)
        gelu = n.op("Add", n.op("Erf", n.op("Div", h, n.constant(np.float32(2 ** 0.5)))), n.constant(np.float32(1)))
        h = n.op("Mul", n.op("Mul", h, gelu), n.constant(np.float32(0.5)))
        x = norm(n.op("Add", x, n.dense(h, 4 * width, width)))
    shape = ["batch", tokens]
    n.write(path, [("input_ids", TensorProto.INT64, shape), ("attention_mask", TensorProto.INT64, shape)],
            n.op("ReduceMean", x, axes=[1], keepdims=0), ["batch", width])
    ids = np.random.default_rng(2).integers(0, words, (1, tokens))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def lstm(path, steps=128, features=64, hidden=256):
    n = Network()
    x = "input"
    for width in (features, hidden):
        w, r = n.weights(1, 4 * hidden, width, fan=width), n.weights(1, 4 * hidden, hidden, fan=hidden)
        x, last, _ = n.op("LSTM", x, w, r, outputs=3, hidden_size=hidden)
        x = n.op("Squeeze", x, n.constant(np.array([1], np.int64)))
    y = n.dense(n.op("Squeeze", last, n.constant(np.array([0], np.int64))), hidden, 10)
    n.write(path, [("input", TensorProto.FLOAT, [steps, "batch", features])], y, ["batch", 10])
    return {"input": np.random.default_rng(2).standard_normal((steps, 1, features)).astype(np.float32)}


NETWORKS = {"resnet18": resnet18, "mobilenet-v3": mobilenet_v3, "minilm": transformer, "lstm": lstm}
DATATYPES = {np.dtype(np.float32): "FP32", np.dtype(np.int64): "INT64"}


def request(inputs):
    """Body and headers of an Open Inference Protocol request with binary tensors, which bypasses the response cache."""
    tensors = [{"name": name, "shape": list(array.shape), "datatype": DATATYPES[array.dtype],
                "parameters": {"binary_data_size": array.nbytes}} for name, array in inputs.items()]
    head = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    body = head + b"".join(array.tobytes() for array in inputs.values())
    return body, {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream",
                  "cache-control": "no-store"}


def bound(path, inputs):
    """A function that runs one inference of ONNX Runtime with bound buffers, and the bound output."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    shape = [axis if isinstance(axis, int) else 1 for axis in session.get_outputs()[0].shape]
    output = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))
    binding.bind_ortvalue_output("output", output)
    return lambda: session.run_with_iobinding(binding), output


def serve(folder, options):
    """Starts a host of the application in `folder`. Returns its process and its address."""
    command = [options.spinfer.resolve(), "up", "--listen", "127.0.0.1:0", "--no-admin", "--quiet"]
    environment = {**os.environ, "SPINFER_LOG": "warn"}
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env=environment)
    return server, server.stdout.readline().split("//")[1].strip()


def add(folder, file, options, *more):
    command = [options.spinfer.resolve(), "add", file, "--component", GENERIC, *more]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def stop(server):
    server.send_signal(signal.SIGINT)
    server.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spinfer", type=Path, default=ROOT / "target/release/spinfer")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="duration of each measurement in each round")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    networks = {name: make(folder / f"{name}.onnx") for name, make in NETWORKS.items()}
    for name in networks:
        add(folder, f"{name}.onnx", options)
    server, address = serve(folder, options)
    try:
        print(f"| network | ONNX Runtime {onnxruntime.__version__} from Python, ms | through the host, ms | ratio |")
        print("| --- | --- | --- | --- |")
        for name, inputs in networks.items():
            print(measure(name, inputs, folder / f"{name}.onnx", address, options), flush=True)
    finally:
        stop(server)
    print("\n| model | file, MB | start to first response, ms | resident, MiB |\n| --- | --- | --- | --- |")
    iris = ROOT / "models/iris-classifier/1/model.onnx"
    row = {"features": np.array([[5.1, 3.5, 1.4, 0.2]], np.float32)}
    for name, file, inputs, backend in [("iris", iris, row, "lean"), ("iris", iris, row, "onnxruntime"),
                                        *((n, folder / f"{n}.onnx", i, None) for n, i in networks.items())]:
        print(cold(name, file, inputs, backend, options), flush=True)


def cold(name, file, inputs, backend, options):
    folder = Path(tempfile.mkdtemp())
    add(folder, file, options, "--name", name)
    if backend:
        settings = folder / f"models/{name}/1/model.toml"
        settings.write_text(f'backend = "{backend}"\n{settings.read_text()}')
    body, headers = request(inputs)
    times, resident = [], 0
    # The first start compiles the component.
    for _ in range(6):
        start = time.perf_counter()
        server, address = serve(folder, options)
        connection = http.client.HTTPConnection(address)
        connection.request("POST", f"/v2/models/{name}/infer", body, headers)
        response = connection.getresponse()
        content = response.read()
        times.append(time.perf_counter() - start)
        if response.status != 200:
            sys.exit(f"{name}: {response.status}: {content[:300]}")
        status = Path(f"/proc/{server.pid}/status").read_text()
        resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        stop(server)
    shown = f"{name} ({backend})" if backend else name
    megabytes, first = file.stat().st_size / 1e6, sorted(times[1:])[2] * 1000
    return f"| {shown} | {megabytes:.1f} | {first:.0f} | {resident / 1024:.0f} |"


def measure(name, inputs, path, address, options):
    infer, output = bound(path, inputs)
    body, headers = request(inputs)
    host, port = address.split(":")
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = f"POST /v2/models/{name}/infer HTTP/1.1\r\nhost: {address}\r\ncontent-length: {len(body)}\r\n"
    head += "".join(f"{key}: {value}\r\n" for key, value in headers.items()) + "\r\n"
    message = head.encode() + body

    # Without http.client, which takes 0.25 ms.
    def send():
        connection.sendall(message)
        received = bytearray()
        while b"\r\n\r\n" not in received:
            received += connection.recv(1 << 16)
        head, _, content = bytes(received).partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        content = bytearray(content)
        while len(content) < int(fields[b"content-length"]):
            content += connection.recv(1 << 16)
        if b" 200 " not in head:
            sys.exit(f"{name}: {head[:100]}: {bytes(content[:300])}")
        return bytes(content[int(fields[b"inference-header-content-length"]):])

    infer()
    served = np.frombuffer(send(), np.float32)
    if not np.allclose(served, output.numpy().ravel(), rtol=1e-4, atol=1e-5):
        sys.exit(f"{name}: the output differs from ONNX Runtime's")

    def timed(work):
        best, end = float("inf"), time.perf_counter() + options.seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            work()
            best = min(best, time.perf_counter() - start)
        return best * 1000

    timed(infer), timed(send)
    rounds = [(timed(infer), timed(send)) for _ in range(options.rounds)]
    native, hosted = (sorted(column)[len(rounds) // 2] for column in zip(*rounds))
    ratio = sorted(h / n for n, h in rounds)[len(rounds) // 2]
    return f"| {name} | {native:.2f} | {hosted:.2f} | {ratio:.2f} |"


if __name__ == "__main__":
    main()
