"""A model version's four files, made from what was trained. README.md describes each file and key."""

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
IR_VERSION = 8  # the one that came with opset 17
DATATYPES = {"tensor(float)": "FP32", "tensor(int64)": "INT64"}  # ONNX Runtime -> Open Inference


@dataclass(frozen=True)
class Trained:
    """What training gave, and what the files beside the graph are made from."""

    graph: onnx.ModelProto
    reference: np.ndarray  # float32: the rows of the graph's input that the baseline summarises
    golden: list[Case]
    tolerance: float
    metrics: Callable  # of an open session: name -> number
    provenance: dict[str, str]
    more_files: dict[str, object] = field(default_factory=dict)  # name -> JSON


@dataclass(frozen=True)
class Version:
    model: str
    number: str
    description: str
    train: Callable[["Version"], Trained]
    fields: list[str] = field(default_factory=list)  # names along the last axis of the input
    labels: list[str] = field(default_factory=list)  # none: a regression
    inputs: list[dict] = field(default_factory=list)  # in place of the graph's, where it is mapped
    more_outputs: list[dict] = field(default_factory=list)  # those a mapping adds

    @property
    def name(self):
        return f"{self.model}/{self.number}"


def finish(graph, version):
    """What every graph has, whatever made it; nothing that changes from one day to the next."""
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
    options.intra_op_num_threads = 1  # the order of sums, hence their last bit, stays the same
    return onnxruntime.InferenceSession(graph_bytes, options, providers=["CPUExecutionProvider"])


def to_json(value, expand, indent=""):
    """JSON with sorted keys: the outer `expand` levels over several lines, the rest on one."""
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
    """A TOML table; strings, numbers and flat lists are written as in JSON."""
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
    inputs = [toml_table("[[inputs]]", **tensor) for tensor in version.inputs] or [
        tensor_table("[[inputs]]", tensor, **fields) for tensor in session.get_inputs()
    ]
    tables = [
        toml_table("", **model, sha256=sha256, **labels),
        *inputs,
        *(tensor_table("[[outputs]]", tensor) for tensor in session.get_outputs()),
        *(toml_table("[[outputs]]", **tensor) for tensor in version.more_outputs),
        toml_table("[provenance]", script="models/train.py", **trained.provenance),
        toml_table("[provenance.metrics]", **trained.metrics(session)),
    ]
    return "\n\n".join(tables) + "\n"


def make_version(version, folder):
    """Trains one version and writes its four files."""
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
