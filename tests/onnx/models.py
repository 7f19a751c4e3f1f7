"""Models as teams export them, with ONNX Runtime's outputs for seven rows and for one.

    python models.py FOLDER

writes the sets `scikit-learn`, `boosting`, `pytorch`, `int8` and `float16` (see case_file.py). Models of
scikit-learn are trained and converted here; boosted trees and PyTorch models are in `exports/`; int8 and
float16 are conversions of those. Inputs are large, small, negative and missing, as only these show errors
such as a log-sum-exp without its maximum or a NaN that is treated as a number.
"""

import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.transformers.float16 import convert_float_to_float16

from case_file import Case, element_types, isolated, run, session, write_set
from scikit_learn import ROWS, scikit_learn

EXPORTS = Path(__file__).parent / "exports"


def main(folder):
    warnings.filterwarnings("ignore")
    sets = {
        "scikit-learn": scikit_learn(),
        "boosting": exports("lightgbm-", "xgboost-", "catboost-"),
        "pytorch": exports("torch-"),
        "int8": int8(),
        "float16": exports("float16-") + float16(),
    }
    for name, entries in sets.items():
        cases = isolated(lambda number: case(*entries[number]), len(entries))  # noqa: B023
        failed = [
            made or f"{entry[0]}: ended its process"
            for entry, made in zip(entries, cases, strict=True)
            if not isinstance(made, Case)
        ]
        if failed:
            sys.exit("\n".join([f"{name}: not converted, or not run by ONNX Runtime:", *failed]))
        write_set(folder, name, cases)
        print(f"{name}: {len(cases)} models")


def case(name, make, inputs, axes=None):
    """A case with seven rows and with one, for the graph of `make`; the error if there is one."""
    try:
        model = make()
        infos = [*model.graph.input, *model.graph.output]
        types = {key: kind or TensorProto.FLOAT for key, kind in element_types(infos).items()}
        data = model.SerializeToString()
        loaded = session(data)
        runs = []
        for count in (ROWS, 1):
            taken = {
                key: array.take(range(count), (axes or {}).get(key, 0))
                for key, array in inputs.items()
            }
            outputs = run(loaded, taken, types)
            runs.append((taken, {key: without_zip_map(value) for key, value in outputs.items()}))
    except Exception as error:
        return f"{name}: {' '.join(str(error).split())[:400]}"
    operators = sorted({node.op_type for node in model.graph.node})
    return Case(name=name, model=data, runs=runs, types=types, more={"operators": operators})


def without_zip_map(value):
    """The rows of a `ZipMap` as the tensor from which they are built."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return np.array([list(row.values()) for row in value], dtype=np.float32)
    return value


def exports(*prefixes):
    return [
        (name, lambda name=name: onnx.load(EXPORTS / f"{name}.onnx"), inputs, axes)
        for name, inputs, axes in committed()
        if name.startswith(prefixes)
    ]


def committed():
    for entry in json.loads((EXPORTS / "exports.json").read_text()):
        with np.load(EXPORTS / f"{entry['inputs']}.npz") as file:
            yield entry["name"], dict(file), entry["axes"]


# Conversions


class Rows(CalibrationDataReader):
    def __init__(self, inputs):
        self.given = iter([inputs])

    def get_next(self):
        return next(self.given, None)


def int8():
    graphs = {name: (inputs, axes) for name, inputs, axes in committed()}
    static = {
        "": {},
        "-operators": {"quant_format": QuantFormat.QOperator},
        "-per-channel": {
            "per_channel": True,
            "activation_type": QuantType.QInt8,
            "weight_type": QuantType.QInt8,
        },
        "-unsigned": {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QUInt8},
        "-16-bits": {
            "activation_type": QuantType.QUInt16,
            "weight_type": QuantType.QInt8,
            "extra_options": {"UseQDQContribOps": False},
        },
    }

    def quantized(name, **options):
        inputs, _ = graphs[name]
        with tempfile.TemporaryDirectory() as scratch:
            here, there = Path(scratch) / "from.onnx", Path(scratch) / "to.onnx"
            # The quantizer writes into the folder of its input.
            here.write_bytes((EXPORTS / f"{name}.onnx").read_bytes())
            if options.pop("dynamic", False):
                quantize_dynamic(here, there, **options)
            else:
                quantize_static(here, there, Rows(inputs), **options)
            return onnx.load(there)

    cases = []
    for network in ["mlp", "mobile-block", "resnet", "encoder", "temporal"]:
        name = f"torch-{network}-script"
        for kind, options in static.items():
            if (network, kind) == ("mobile-block", "-operators") or (
                network in ("encoder", "temporal") and kind[1:] in ("unsigned", "16-bits")
            ):
                continue
            make = lambda name=name, options=options: quantized(name, **dict(options))
            cases.append((f"{network}{kind}", make, *graphs[name]))
    for network in ["mlp", "lstm", "lstm-both-ways", "encoder", "causal", "mixture"]:
        name = f"torch-{network}-script"
        make = lambda name=name: quantized(name, dynamic=True)
        cases.append((f"{network}-dynamic", make, *graphs[name]))
    return cases


FLOAT16 = [
    "mobile-block",
    "resnet",
    "pools",
    "temporal",
    "gru-both-ways",
    "resize",
    "statistics",
    "windows",
]


def float16():
    """By ONNX Runtime's converter; the graphs of onnxconverter-common are in `exports/`."""
    cases = []
    for network, inputs, axes in committed():
        if network.removeprefix("torch-").removesuffix("-script") in FLOAT16:
            make = lambda network=network: convert_float_to_float16(
                onnx.load(EXPORTS / f"{network}.onnx"), keep_io_types=True
            )
            cases.append((f"{network}-kept-edges", make, inputs, axes))
    return cases


if __name__ == "__main__":
    main(sys.argv[1])
