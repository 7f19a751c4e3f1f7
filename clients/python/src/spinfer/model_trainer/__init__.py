"""Exports a fitted scikit-learn estimator as a model version for spinfer.

    from spinfer import model_trainer

    folder = model_trainer.export(estimator, X_train, y_train, name="wine")

writes ``models/wine/1`` with ``model.onnx``, ``model.toml``, ``baseline.json`` and ``golden.json``.
Needs ``pip install 'spinfer[train]'``.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

try:
    import numpy as np
    import onnx
    import onnxruntime
    import skl2onnx
    import sklearn
except ImportError as missing:
    raise ImportError(
        f"spinfer.model_trainer needs {missing.name}: pip install 'spinfer[train]'"
    ) from None

from spinfer.model_trainer._baseline import make_baseline, names_of_elements, shortest
from spinfer.model_trainer._convert import INPUT, Converted, convert, describe
from spinfer.model_trainer._errors import DisagreementWarning, ExportError
from spinfer.model_trainer._folder import check_name, choose_version, to_json, toml_table, write
from spinfer.model_trainer._session import Computed, compute, open_session
from spinfer.model_trainer._table import Table, read

__all__ = ["DisagreementWarning", "ExportError", "export", "manifest_entry"]

# Number of rows in golden.json: one case per row, and one with all rows as a batch.
GOLDEN_ROWS = 30
# Tolerance in golden.json for outputs up to 1; larger outputs scale it up (see models/README.md).
GOLDEN_TOLERANCE = 1e-5
# Datatypes of the Open Inference Protocol by ONNX Runtime's types.
DATATYPES = {
    "tensor(float)": "FP32",
    "tensor(float16)": "FP16",
    "tensor(double)": "FP64",
    "tensor(int64)": "INT64",
    "tensor(int32)": "INT32",
    "tensor(uint8)": "UINT8",
}
GENERIC_COMPONENT = "components/generic-model.wasm"


def export(
    estimator: Any,
    X: Any,
    y: Any = None,
    *,
    name: str,
    directory: str | PathLike[str] = "models",
    version: int | str | None = None,
    description: str = "",
    labels: Sequence[str] | None = None,
    fields: Sequence[str] | None = None,
    target: str | None = None,
    metrics: Mapping[str, float] | None = None,
    provenance: Mapping[str, str] | None = None,
    cache_seconds: int | None = None,
    tolerance: float = 1e-4,
    max_disagreement: float = 0.05,
) -> Path:
    """Writes a version folder from a fitted estimator and its reference data.

    The graph is run on ``X`` and compared with the estimator before anything is written. The folder
    is written atomically. An existing version is never overwritten.

    Args:
        estimator: a fitted scikit-learn classifier or regressor, or a pipeline that ends in one.
        X: reference data for drift, usually the training data. A DataFrame, whose columns become
            the feature names, or an array.
        y: the true targets of ``X``; the accuracy or the errors go into the provenance.
        name: name of the model, such as ``wine-classifier``.
        directory: the model repository.
        version: number of the version; default: the next one.
        description: a description in one line.
        labels: class names, in the order of ``estimator.classes_``; default: the classes.
        fields: feature names; default: the DataFrame's columns.
        target: name of a regression's output; default: the name of ``y``, or ``prediction``.
        metrics: numbers for the provenance, such as ``{"test_accuracy": 0.97}``.
        provenance: strings for the provenance, such as ``{"dataset": "wine, 178 rows"}``.
        cache_seconds: maximum age of a cached prediction, in seconds; default: the server's.
        tolerance: maximum difference between graph and estimator in a probability; for a
            regression relative to the largest prediction.
        max_disagreement: maximum share of rows that may differ more, because the graph computes in
            float32. Such rows issue a ``DisagreementWarning`` and are excluded from
            ``golden.json``. 0: none.

    Returns:
        The folder, ``<directory>/<name>/<version>``.

    Raises:
        ExportError: the estimator cannot be converted, or the graph differs from it.
    """
    # 1 name and version, before the conversion
    check_name(name)
    models = Path(directory) / name
    number = choose_version(models, version)

    # 2 the graph, and its outputs for the reference data
    named = getattr(estimator, "feature_names_in_", None)
    table = read(X, fields, None if named is None else [str(one) for one in named])
    converted = convert(
        estimator,
        table.rows.shape[1],
        name=name,
        target=target or target_of(y),
        positions=None if labels is None else True,
        description=description,
    )
    converted.graph.model_version = int(number)
    names = names_of_classes(converted, labels)
    onnx.checker.check_model(converted.graph)
    graph = converted.graph.SerializeToString(deterministic=True)
    session = open_session(graph)
    computed = compute(session, converted, estimator, table, tolerance, max_disagreement)

    # 3 the files
    model = {"name": name, "version": number}
    head: dict[str, Any] = {
        **model,
        "description": description or summary_of(estimator, converted),
        "sha256": hashlib.sha256(graph).hexdigest(),
    }
    if names is not None:
        head["labels"] = names
    if cache_seconds is not None:
        head["cache_seconds"] = cache_seconds
    about = {
        "script": "spinfer.model_trainer",
        "estimator": describe(estimator),
        "framework": f"scikit-learn {sklearn.__version__}",
        "converter": f"skl2onnx {skl2onnx.__version__}",
        **(provenance or {}),
    }
    measured = {**measure(converted, computed, y), **(metrics or {})}
    inputs = [tensor_entries(tensor, table.rows, table.fields) for tensor in session.get_inputs()]
    outputs = [
        tensor_entries(tensor, computed.outputs[tensor.name], [])
        for tensor in session.get_outputs()
    ]
    tables = [
        toml_table("", head),
        *(toml_table("[[inputs]]", entries) for entries in inputs),
        *(toml_table("[[outputs]]", entries) for entries in outputs),
        toml_table("[provenance]", {key: str(value) for key, value in about.items()}),
        *([toml_table("[provenance.metrics]", measured)] if measured else []),
    ]
    of_model = {"model": name, "version": number}
    baseline = of_model | make_baseline(
        table.rows,
        table.fields or names_of_elements(INPUT, table.rows.shape[1]),
        computed.outputs,
        classes_in_output(converted),
    )
    golden = of_model | make_golden(session, table, computed)
    folder = models / number
    write(
        folder,
        {
            "model.onnx": graph,
            "model.toml": ("\n\n".join(tables) + "\n").encode(),
            "baseline.json": (to_json(baseline, expand=3) + "\n").encode(),
            "golden.json": (to_json(golden, expand=2) + "\n").encode(),
        },
    )
    return folder


def manifest_entry(
    folder: str | PathLike[str],
    *,
    component: str = GENERIC_COMPONENT,
    production: bool = True,
    manifest: str | PathLike[str] = "spin.toml",
) -> str:
    """The lines for ``spin.toml`` that serve a version folder with the generic component.

    Args:
        folder: the folder that :func:`export` returned.
        component: path of the component, as the manifest refers to it.
        production: add the model's plain route, for the version in production.
        manifest: the manifest; the path of the folder is relative to it.

    >>> print(manifest_entry("models/wine/2", production=False))
    [[trigger.http]]
    route = "/v2/models/wine/versions/2/..."
    component = "wine-2"
    <BLANKLINE>
    [component.wine-2]
    source = "components/generic-model.wasm"
    files = [{ source = "models/wine/2", destination = "/models/wine" }]
    <BLANKLINE>
    """
    path = Path(folder)
    base = Path(manifest).resolve().parent
    if path.is_absolute() and path.is_relative_to(base):
        path = path.relative_to(base)
    name, number = path.parent.name, path.name
    identity = f"{name}-{number}"
    routes = [f"/v2/models/{name}/..."] if production else []
    routes.append(f"/v2/models/{name}/versions/{number}/...")
    tables = [
        toml_table("[[trigger.http]]", {"route": route, "component": identity}) for route in routes
    ]
    source = toml_table(f"[component.{identity}]", {"source": component})
    mount = toml_table("", {"source": path.as_posix(), "destination": f"/models/{name}"})
    tables.append(f"{source}\nfiles = [{{ {', '.join(mount.splitlines())} }}]")
    return "\n\n".join(tables) + "\n"


def target_of(y: Any) -> str:
    """The name of a regression's output."""
    name = getattr(y, "name", None)
    return name if isinstance(name, str) and name and name != INPUT else "prediction"


def names_of_classes(
    converted: Converted, labels: Sequence[str] | None
) -> list[str] | list[int] | None:
    """``labels`` for model.toml."""
    classes = converted.classes
    if classes is None:
        if labels is not None:
            raise ExportError("labels: a regression has no classes; remove labels=")
        return None
    if labels is not None:
        if len(labels) != len(classes):
            raise ExportError(f"labels: expected {len(classes)} names, got {len(labels)}")
        names = [str(label) for label in labels]
    elif classes.dtype.kind in "iu":
        return [int(one) for one in classes]
    else:
        names = [name_of_class(one) for one in classes.tolist()]
    if len(set(names)) != len(names):
        raise ExportError(f"labels: duplicate names: {names}; pass unique labels=")
    return names


def name_of_class(value: Any) -> str:
    """The name of a class that is not an integer.

    >>> name_of_class("setosa"), name_of_class(1.0), name_of_class(True)
    ('setosa', '1', 'True')
    """
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def classes_in_output(converted: Converted) -> list[int] | None:
    """The values of the class output; ``None`` for a regression."""
    if converted.classes is None:
        return None
    if converted.positions:
        return list(range(len(converted.classes)))
    return [int(one) for one in converted.classes]


def summary_of(estimator: Any, converted: Converted) -> str:
    """The default description."""
    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    kind = type(last).__name__
    if converted.classes is None:
        return f"{kind}, a regression."
    return f"{kind} of {len(converted.classes)} classes."


def tensor_entries(tensor: Any, values: Any, fields: list[str]) -> dict[str, Any]:
    """An input or output for model.toml. Graphs may declare another shape than the values have."""
    entries: dict[str, Any] = {
        "name": tensor.name,
        "datatype": DATATYPES[tensor.type],
        "shape": [-1, *values.shape[1:]],
    }
    return {**entries, "fields": fields} if fields else entries


def measure(converted: Converted, computed: Computed, y: Any) -> dict[str, float]:
    """Accuracy or errors of the graph on the reference data."""
    if y is None:
        return {}
    from sklearn.metrics import mean_absolute_error, r2_score

    right = np.asarray(y)
    first = next(iter(computed.outputs.values()))
    if len(right) != len(first):
        raise ExportError(f"y: expected {len(first)} values, one per row of X; got {len(right)}")
    if converted.classes is not None and converted.label is not None:
        given = computed.outputs[converted.label].ravel()
        given = converted.classes[given] if converted.positions else given
        return {"reference_accuracy": round(float((given == right.ravel()).mean()), 4)}
    predicted = first.reshape(right.shape)
    return {
        "reference_r2": round(float(r2_score(right, predicted)), 4),
        "reference_mean_absolute_error": float(f"{mean_absolute_error(right, predicted):.4g}"),
    }


def make_golden(session: Any, table: Table, computed: Computed) -> dict[str, Any]:
    """Cases with ONNX Runtime's outputs: single rows of the reference data, then all as a batch."""
    # JSON has no NaN.
    usable = computed.agree & ~np.isnan(table.rows).any(axis=1)
    for output in computed.outputs.values():
        if output.dtype.kind == "f":
            usable &= np.isfinite(output).reshape(len(usable), -1).all(axis=1)
    chosen = np.flatnonzero(usable)
    if len(chosen) > GOLDEN_ROWS:
        chosen = chosen[np.linspace(0, len(chosen) - 1, GOLDEN_ROWS).astype(int)]
    if len(chosen) == 0:
        warnings.warn(
            "golden.json has no cases: every row of X has a missing value, which JSON does not "
            "support",
            stacklevel=3,
        )
    batches = [*chosen[:, None], chosen] if len(chosen) else []
    cases = [make_case(session, table.rows[batch]) for batch in batches]
    greatest = max(
        [1.0]
        + [
            float(np.abs(output[chosen]).max())
            for output in computed.outputs.values()
            if output.dtype.kind == "f" and len(chosen)
        ]
    )
    return {
        "produced_by": f"onnxruntime {onnxruntime.__version__}",
        "tolerance": float(f"{GOLDEN_TOLERANCE * greatest:.1g}"),
        "cases": cases,
    }


def make_case(session: Any, rows: Any) -> dict[str, Any]:
    """A case of golden.json."""
    names = [output.name for output in session.get_outputs()]
    outputs = zip(names, session.run(names, {INPUT: rows}))
    return {
        "inputs": {INPUT: to_tensor(rows)},
        "outputs": {name: to_tensor(output) for name, output in outputs},
    }


def to_tensor(array: Any) -> dict[str, Any]:
    """A tensor of golden.json."""
    data = array.ravel().tolist()
    if array.dtype == np.float32:
        data = [shortest(value) for value in array.ravel()]
    return {"shape": list(array.shape), "data": data}
