"""Cases for the backends: a graph, inputs, and the correct outputs.

A set is `<folder>/<set>.json`, the list of its cases, and two files for each case in `<folder>/<set>/`:
`<name>.onnx`, and `<name>.bin` with its runs. All numbers in `<name>.bin` are little-endian:

    runs     u32 count, then for each its inputs, the correct outputs, and ONNX Runtime's outputs if they
             differ (else none)
    inputs   u32 count, then for each: u32 length and UTF-8 of its name, its value (same for outputs)
    value    u8 0: a tensor. u32 element type (onnx.TensorProto.DataType), u32 rank, u64 for each axis,
                   u64 length in bytes, the elements
             u8 1: a sequence. u32 count, its values
             u8 2: an optional without a value

Elements are row-major, with the width of their type, except:
  - STRING: u32 length and UTF-8 for each
  - INT4 and INT2 as INT8, UINT4 and UINT2 as UINT8, 8, 6 and 4 bits of floating point as FLOAT
    (`element type` is still that of the graph).
"""

import ctypes
import json
import multiprocessing
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto

SMALL_INTEGERS = {
    TensorProto.INT4: np.int8,
    TensorProto.INT2: np.int8,
    TensorProto.UINT4: np.uint8,
    TensorProto.UINT2: np.uint8,
}
SMALL_FLOATS = {
    TensorProto.FLOAT8E4M3FN,
    TensorProto.FLOAT8E4M3FNUZ,
    TensorProto.FLOAT8E5M2,
    TensorProto.FLOAT8E5M2FNUZ,
    TensorProto.FLOAT8E8M0,
    TensorProto.FLOAT4E2M1,
}
# Types that numpy does not have, in the representation of the `onnx` package.
ML_DTYPES = {
    TensorProto.BFLOAT16: ml_dtypes.bfloat16,
    TensorProto.FLOAT8E4M3FN: ml_dtypes.float8_e4m3fn,
    TensorProto.FLOAT8E4M3FNUZ: ml_dtypes.float8_e4m3fnuz,
    TensorProto.FLOAT8E5M2: ml_dtypes.float8_e5m2,
    TensorProto.FLOAT8E5M2FNUZ: ml_dtypes.float8_e5m2fnuz,
    TensorProto.FLOAT8E8M0: ml_dtypes.float8_e8m0fnu,
    TensorProto.FLOAT4E2M1: ml_dtypes.float4_e2m1fn,
    TensorProto.INT4: ml_dtypes.int4,
    TensorProto.UINT4: ml_dtypes.uint4,
    TensorProto.INT2: ml_dtypes.int2,
    TensorProto.UINT2: ml_dtypes.uint2,
}
PACKED_BITS = {
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    TensorProto.INT2: 2,
    TensorProto.UINT2: 2,
}


@dataclass
class Case:
    name: str
    model: bytes
    # The inputs and the outputs of each run, by name: an array, a list of arrays, or None.
    runs: list[tuple[dict, dict]]
    # The element type of each name, which an array cannot tell if numpy does not have the type.
    types: dict[str, int]
    rtol: float = 1e-4
    atol: float = 1e-4
    # The result of ONNX Runtime itself: "correct", "wrong", "refused", "crashed".
    onnxruntime: str = "correct"
    why: str = ""
    # ONNX Runtime's outputs of each run, if its result is "wrong".
    others: list[dict] = field(default_factory=list)
    more: dict = field(default_factory=dict)


def elements(array, element_type):
    """The elements of `array` in the format of a case file."""
    array = np.asarray(array)
    if element_type == TensorProto.STRING:
        texts = [t if isinstance(t, bytes) else str(t).encode() for t in array.ravel().tolist()]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    if element_type in SMALL_INTEGERS:
        array = array.astype(SMALL_INTEGERS[element_type])
    elif element_type in SMALL_FLOATS:
        array = array.astype(np.float32)
    return np.ascontiguousarray(array).tobytes()


def value(given, element_type):
    if given is None:
        return b"\2"
    if isinstance(given, (list, tuple)):
        return struct.pack("<BI", 1, len(given)) + b"".join(
            value(each, element_type) for each in given
        )
    shape, data = np.shape(given), elements(given, element_type)
    head = struct.pack(f"<BII{len(shape)}QQ", 0, element_type, len(shape), *shape, len(data))
    return head + data


def named(values, types):
    parts = [struct.pack("<I", len(values))]
    for name, given in values.items():
        encoded = name.encode()
        parts += [struct.pack("<I", len(encoded)), encoded, value(given, types[name])]
    return b"".join(parts)


def write_set(folder, name, cases):
    """Writes the files of a set. Its index is last, so that an interrupted run leaves none."""
    inside = Path(folder) / name
    inside.mkdir(parents=True, exist_ok=True)
    index = []
    for case in cases:
        (inside / f"{case.name}.onnx").write_bytes(case.model)
        runs = [struct.pack("<I", len(case.runs))]
        for number, (inputs, outputs) in enumerate(case.runs):
            others = case.others[number] if number < len(case.others) else {}
            runs += [
                named(inputs, case.types),
                named(outputs, case.types),
                named(others, case.types),
            ]
        (inside / f"{case.name}.bin").write_bytes(b"".join(runs))
        entry = {
            "name": case.name,
            "rtol": case.rtol,
            "atol": case.atol,
            "onnxruntime": case.onnxruntime,
        }
        if case.why:
            entry["why"] = case.why
        index.append(entry | case.more)
    (Path(folder) / f"{name}.json").write_text(json.dumps(index, indent=1))


def element_types(value_infos):
    """The element type of each input or output, including sequences and optionals of tensors."""
    types = {}
    for info in value_infos:
        kind = info.type
        while kind.WhichOneof("value") in ("sequence_type", "optional_type"):
            kind = getattr(kind, kind.WhichOneof("value")).elem_type
        types[info.name] = kind.tensor_type.elem_type
    return types


def session(model):
    """ONNX Runtime with `model`. A StringNormalizer gets the one locale that every glibc has: the standard's
    default, en_US, is not installed in containers, and has the same case mapping."""
    if b"StringNormalizer" in model:
        loaded = onnx.load_from_string(model)
        for node in loaded.graph.node:
            if node.op_type == "StringNormalizer":
                kept = [each for each in node.attribute if each.name != "locale"]
                del node.attribute[:]
                node.attribute.extend([*kept, onnx.helper.make_attribute("locale", "C.UTF-8")])
        model = loaded.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(loaded, inputs, types):
    """ONNX Runtime's outputs, by name."""
    names = [output.name for output in loaded.get_outputs()]
    extended = any(types[name] in ML_DTYPES for name in [*inputs, *names])
    if not extended:
        return dict(zip(names, loaded.run(None, inputs), strict=True))
    feed = {name: ort_value(array, types[name]) for name, array in inputs.items()}
    return {
        name: from_ort_value(out)
        for name, out in zip(names, loaded.run_with_ort_values(None, feed), strict=True)
    }


def ort_value(array, element_type):
    if element_type not in ML_DTYPES:
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
    of_type = np.asarray(array).astype(ML_DTYPES[element_type])
    made = onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(of_type.shape), int(element_type))
    data = of_type.tobytes()
    if bits := PACKED_BITS.get(element_type):
        data = packed(data, bits)
    ctypes.memmove(made.data_ptr(), data, len(data))
    return made


def from_ort_value(given):
    element_type = given.element_type()
    if element_type not in ML_DTYPES:
        return given.numpy()
    dtype, shape = np.dtype(ML_DTYPES[element_type]), given.shape()
    count = int(np.prod(shape))
    bits = PACKED_BITS.get(element_type)
    length = -(-count * bits // 8) if bits else count * dtype.itemsize
    data = ctypes.string_at(given.data_ptr(), length) if length else b""
    if bits:
        data = unpacked(data, bits)[:count]
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def packed(data, bits):
    """From one element per byte to several, with the first element in the lowest bits."""
    each, mask = 8 // bits, (1 << bits) - 1
    padded = data + bytes(-len(data) % each)
    return bytes(
        sum((padded[at + n] & mask) << (n * bits) for n in range(each))
        for at in range(0, len(padded), each)
    )


def unpacked(data, bits):
    each, mask = 8 // bits, (1 << bits) - 1
    return bytes((byte >> (n * bits)) & mask for byte in data for n in range(each))


def isolated(work, count):
    """`work(0)`, ..., `work(count - 1)` in child processes; None for those that end their process."""
    context = multiprocessing.get_context("fork")
    workers = min(os.cpu_count() or 1, count) or 1
    results = [None] * count
    running = []
    for worker in range(workers):
        running.append(start(context, work, list(range(worker, count, workers))))
    while running:
        for at in multiprocessing.connection.wait([each[1] for each in running]):
            process, pipe, left = entry = next(each for each in running if each[1] is at)
            try:
                done, result = pipe.recv()
                results[done] = result
                left.remove(done)
                continue
            except EOFError:
                process.join()
            running.remove(entry)
            # The case that ended its process is the first one without a result.
            if left[1:]:
                running.append(start(context, work, left[1:]))
    return results


def start(context, work, of):
    receiver, sender = context.Pipe(duplex=False)

    def body():
        # ONNX Runtime's messages about graphs that it refuses.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        for number in of:
            sender.send((number, work(number)))
        sender.close()

    process = context.Process(target=body)
    process.start()
    sender.close()
    return process, receiver, list(of)
