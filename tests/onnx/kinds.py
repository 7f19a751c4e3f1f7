"""Small graphs, one for each kind of error that a backend or the host can make.

    python kinds.py FOLDER

writes the set `kinds` (see case_file.py) and `kinds/cases.json` with one request for each graph:

    name, what   the graph, and its subject
    http         whether it is one of those that are also tested over HTTP
    want         "equal": ONNX Runtime's outputs; "400": a client error, whose message has no weights, paths
                 or internals of a backend
    inputs       by name: shape, numpy's dtype, data; NaN is null
    expected     by name: shape, data; numbers that JSON cannot represent are null. null if want is "400"

Graphs with an axis `n` are also run with one row and with three times the rows.
"""

import json
import sys
from pathlib import Path

import numpy as np

import kinds_layers
import kinds_numbers
import kinds_shapes
import kinds_strings
from case_file import Case, element_types, isolated, run, session, write_set
from kind import F32, kinds

# One or two graphs of each kind.
OVER_HTTP = {
    "reducelogsumexp",
    "qdq-softmax",
    "lstm-reverse",
    "lstm-forward",
    "einsum-ellipsis",
    "celu-attributes",
    "fixed-first-axis-ten-thousand",
    "nms",
    "nms-nothing",
    "f16-gemm",
    "div-integers",
    "div-by-zero-int64",
    "div-overflow",
    "gather-beyond",
    "positions-too-long",
    "clip-nan",
    "add-int8",
    "mul-uint64",
    "mask",
    "string-concat",
    "string-and-number",
    "batch-is-second",
    "sequence-of-outputs",
    "empty-relu",
}


def main(folder):
    for graphs in (kinds_numbers, kinds_layers, kinds_shapes, kinds_strings):
        graphs.declare()
    made = isolated(lambda number: case(*kinds[number]), len(kinds))
    failed = [
        each or f"{entry[0]}: ended its process"
        for entry, each in zip(kinds, made, strict=True)
        if not isinstance(each, tuple)
    ]
    if failed:
        sys.exit("\n".join(["ONNX Runtime does not run:", *failed]))
    write_set(folder, "kinds", [each for each, _ in made])
    requests = json.dumps([request for _, request in made], indent=1, allow_nan=False)
    (Path(folder) / "kinds" / "cases.json").write_text(requests)
    print(f"kinds: {len(made)} graphs")


def case(name, what, model, inputs, axes, want, rtol):
    types = element_types([*model.graph.input, *model.graph.output])
    data = model.SerializeToString()
    runs, expected = [(inputs, {})], None
    if want == "equal":
        try:
            loaded = session(data)
            runs = [(each, run(loaded, each, types)) for each in batches(inputs, axes)]
        except Exception as error:
            return f"{name}: {' '.join(str(error).split())[:400]}"
        expected = {key: as_json(value) for key, value in parted(runs[0][1])}
    operators = sorted({each.op_type for each in model.graph.node})
    written = Case(
        name=name,
        model=data,
        runs=runs,
        types=types,
        rtol=rtol,
        atol=rtol / 10,
        more={"want": want, "operators": operators},
    )
    sent = {key: {"dtype": str(value.dtype), **as_json(value)} for key, value in inputs.items()}
    return written, {
        "name": name,
        "http": name in OVER_HTTP,
        "what": what,
        "want": want,
        "expected": expected,
        "inputs": sent,
    }


def parted(outputs):
    """The outputs as the host returns them: each tensor of a sequence is an output."""
    for key, value in outputs.items():
        if isinstance(value, list):
            yield from ((f"{key}_{n}", each) for n, each in enumerate(value))
        else:
            yield key, value


def batches(inputs, axes):
    yield inputs
    if axes:
        yield {
            key: value.take(range(1), axes[key]) if key in axes else value
            for key, value in inputs.items()
        }
        yield {
            key: np.concatenate([value] * 3, axes[key]) if key in axes else value
            for key, value in inputs.items()
        }


def as_json(value):
    value = np.asarray(value)
    kept = value.astype(F32) if value.dtype.name == "bfloat16" else value
    data = [
        None if isinstance(each, float) and not np.isfinite(each) else each
        for each in kept.ravel().tolist()
    ]
    return {"shape": list(value.shape), "data": data}


if __name__ == "__main__":
    main(sys.argv[1])
