"""Writes the files of a trained model version. README.md describes each file and key."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version as installed

import numpy as np
import onnx
import onnxruntime

from reference import Case, make_baseline, make_golden

OPSETS = {"": 17, "ai.onnx.ml": 1}
IR_VERSION = 8  # of opset 17
DATATYPES = {"tensor(float)": "FP32", "tensor(int64)": "INT64"}  # ONNX Runtime -> Open Inference


@dataclass(frozen=True)
class Trained:
    """The result of training: the graph, and the data for the other files."""

    graph: onnx.ModelProto
    reference: np.ndarray  # float32: rows of the graph's input that the baseline summarises
    golden: list[Case]
    tolerance: float
    metrics: Callable  # session -> {name: number}
    provenance: dict[str, str]
    more_files: dict[str, object] = field(default_factory=dict)  # name -> JSON


@dataclass(frozen=True)
class Version:
    model: str
    number: str
    description: str
    train: Callable[["Version"], Trained]
    fields: list[str] = field(default_factory=list)  # names along the last axis of the input
    labels: list[str] = field(default_factory=list)  # empty for a regression
    inputs: list[dict] = field(default_factory=list)  # with a mapping, instead of the graph's
    more_outputs: list[dict] = field(default_factory=list)  # outputs that a mapping adds

    @property
    def name(self):
        return f"{self.model}/{self.number}"


def finish(graph, version):
    """Sets the metadata of a graph, without anything that changes from run to run."""
    graph.producer_name = "spinfer models/train.py"
    graph.producer_version = ""
    graph.domain = ""
    graph.model_version = int(version.number)
    graph.ir_version = IR_VERSION
    del graph.opset_import[:]  # skl2onnx lists the default domain twice
    graph.opset_import.extend(onnx.helper.make_opsetid(*opset) for opset in OPSETS.items())
    onnx.checker.check_model(graph, full_check=True)
    return graph


def open_session(graph_bytes):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a fixed order of sums, and therefore the same last bits
    return onnxruntime.InferenceSession(graph_bytes, options, providers=["CPUExecutionProvider"])


def to_json(value, expand, indent=""):
    """JSON with sorted keys: the outer `expand` levels on several lines, the rest on one."""
    if expand == 0 or not isinstance(value, (dict, list)):
        return json.dumps(value, sort_keys=True, allow_nan=False)
    inner = indent + "  "
    if isinstance(value, dict):
        items = [f"{json.dumps(k)}: {to_json(value[k], expand - 1, inner)}" for k in sorted(value)]
    else:
        items = [to_json(item, expand - 1, inner) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return opening + "\n" + ",\n".join(inner + item for item in items) + f"\n{indent}{closing}"


def toml_table(header, **entries):
    """A TOML table. Strings, numbers and flat lists have the syntax of JSON."""
    lines = [header] if header else []
    return "\n".join(lines + [f"{key} = {json.dumps(value)}" for key, value in entries.items()])


def tensor_table(header, tensor, **extra):
    shape = [axis if isinstance(axis, int) else -1 for axis in tensor.shape]
    datatype = DATATYPES[tensor.type]
    return toml_table(header, name=tensor.name, datatype=datatype, shape=shape, **extra)


def make_model_toml(version, session, sha256, trained):
    labels = {"labels": version.labels} if version.labels else {}
    fields = {"fields": version.fields} if version.fields else {}
    model = {"name": version.model, "version": version.number, "description": version.description}
    # The component maps these tensors to those of the graph.
    mapped = {"mapped": True} if version.inputs or version.more_outputs else {}
    inputs = [toml_table("[[inputs]]", **tensor) for tensor in version.inputs] or [
        tensor_table("[[inputs]]", tensor, **fields) for tensor in session.get_inputs()
    ]
    tables = [
        toml_table("", **model, sha256=sha256, **mapped, **labels),
        *inputs,
        *(tensor_table("[[outputs]]", tensor) for tensor in session.get_outputs()),
        *(toml_table("[[outputs]]", **tensor) for tensor in version.more_outputs),
        toml_table("[provenance]", script="models/train.py", **trained.provenance),
        toml_table("[provenance.metrics]", **trained.metrics(session)),
    ]
    return "\n\n".join(tables) + "\n"


def make_version(version, folder):
    """Trains a version and writes its files."""
    trained = version.train(version)
    graph_bytes = trained.graph.SerializeToString(deterministic=True)
    sha256 = hashlib.sha256(graph_bytes).hexdigest()
    session = open_session(graph_bytes)
    model_toml = make_model_toml(version, session, sha256, trained)

    named = {"model": version.model, "version": version.number}
    baseline = named | make_baseline(session, trained.reference, version.fields, version.labels)
    produced_by = {"produced_by": f"onnxruntime {installed('onnxruntime')}"}
    golden = named | produced_by | make_golden(session, trained.golden, trained.tolerance)

    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(graph_bytes)
    (folder / "model.toml").write_text(model_toml)
    (folder / "baseline.json").write_text(to_json(baseline, expand=3) + "\n")
    (folder / "golden.json").write_text(to_json(golden, expand=2) + "\n")
    for name, content in trained.more_files.items():
        (folder / name).write_text(to_json(content, expand=1) + "\n")
    metrics = model_toml[model_toml.index("[provenance.metrics]") :].split("\n", 1)[1]
    print(f"  {len(graph_bytes)} bytes, sha256 {sha256[:12]}..., {metrics.strip()}")
