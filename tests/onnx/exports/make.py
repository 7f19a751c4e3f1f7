"""Exports the graphs of this folder: PyTorch, LightGBM, XGBoost, CatBoost, and float16 conversions of some.

    python -m venv .venv && .venv/bin/pip install --requirement requirements.txt && .venv/bin/python make.py

PyTorch alone takes gigabytes, so the graphs are committed, with seven rows of inputs (`*.npz`). `exports.json`
lists the graphs, their inputs, and the batch axis of each input. The expected outputs are ONNX Runtime's;
`models.py` computes them when it prepares the cases.
"""

import json
import sys
import tempfile
import warnings
from pathlib import Path

import catboost
import lightgbm
import numpy as np
import onnx
import onnxruntime
import torch
import xgboost
from onnxconverter_common import float16
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from sklearn.datasets import make_classification, make_regression
from torch import nn

from networks import (
    Bilinear,
    Causal,
    Double,
    Encoder,
    Fields,
    Masked,
    Mixture,
    Mlp,
    MobileBlock,
    Normed,
    Pixels,
    Pools,
    ResNet,
    Sampled,
    Sequence,
    Statistics,
    Temporal,
    TimeFirst,
    Windows,
)

ROWS = 7
LARGEST_FILE = 200_000
folder = Path(__file__).parent
index = []


def add(name, model, inputs, axes=None, inputs_name=None):
    """`inputs` have seven rows; `axes` has the batch axis of those where it is not the first."""
    without_traces(model)
    data = model.SerializeToString()
    if len(data) > LARGEST_FILE:
        sys.exit(f"{name}: {len(data)} bytes, at most {LARGEST_FILE}")
    inputs_name = inputs_name or name
    (folder / f"{name}.onnx").write_bytes(data)
    np.savez_compressed(folder / f"{inputs_name}.npz", **inputs)
    index.append(
        {
            "name": name,
            "inputs": inputs_name,
            "axes": {key: (axes or {}).get(key, 0) for key in inputs},
        }
    )
    print(f"{name}: {len(data)} bytes")


def without_traces(message):
    """Removes the source locations of nodes."""
    for name in ["doc_string", "metadata_props"]:
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for field, value in message.ListFields():
        if field.message_type is not None and field.name not in ("initializer", "t"):
            for each in value if field.is_repeated else [value]:
                without_traces(each)


# PyTorch


def normal(*shape, scale=1.0):
    return torch.randn(*shape) * scale


def pytorch():
    tokens = lambda limit, length: torch.randint(0, limit, (ROWS, length))
    mask = torch.ones(ROWS, 9, dtype=torch.int64)
    for row in range(ROWS):
        mask[row, 9 - row :] = 0
    cases = [
        ("mlp", Mlp, {"x": normal(ROWS, 20, scale=50)}, {}),
        ("mobile-block", MobileBlock, {"x": normal(ROWS, 8, 11, 13, scale=5)}, {}),
        ("resnet", ResNet, {"x": normal(ROWS, 3, 33, 33, scale=3)}, {}),
        ("pools", Pools, {"x": normal(ROWS, 2, 10, 11, scale=100)}, {}),
        ("lstm", lambda: Sequence(nn.LSTM), {"tokens": tokens(50, 13)}, {}),
        (
            "lstm-both-ways",
            lambda: Sequence(nn.LSTM, bidirectional=True),
            {"tokens": tokens(50, 13)},
            {},
        ),
        (
            "gru-both-ways",
            lambda: Sequence(nn.GRU, bidirectional=True, num_layers=2),
            {"tokens": tokens(50, 13)},
            {},
        ),
        ("rnn-relu", lambda: Sequence(nn.RNN, nonlinearity="relu"), {"tokens": tokens(50, 13)}, {}),
        ("time-first", TimeFirst, {"x": normal(8, ROWS, 6, scale=4)}, {"x": 1}),
        ("encoder", Encoder, {"tokens": tokens(60, 9), "mask": mask}, {}),
        ("causal", Causal, {"tokens": tokens(40, 10)}, {}),
        ("resize", Bilinear, {"x": normal(ROWS, 4, 6, 5, scale=10)}, {}),
        ("norms", Normed, {"x": normal(ROWS, 6, 11, scale=200)}, {}),
        ("temporal", Temporal, {"x": normal(ROWS, 5, 17)}, {}),
        ("mixture", Mixture, {"x": normal(ROWS, 8, scale=6)}, {}),
        ("statistics", Statistics, {"x": normal(ROWS, 12, scale=400)}, {}),
        (
            "fields",
            Fields,
            {
                "user": torch.randint(0, 30, (ROWS,)),
                "items": tokens(30, 5),
                "numbers": normal(ROWS, 4, scale=9),
            },
            {},
        ),
        ("masked", Masked, {"x": normal(ROWS, 9, scale=30), "mask": normal(ROWS, 9) > -0.5}, {}),
        (
            "pixels",
            Pixels,
            {"image": torch.randint(0, 256, (ROWS, 9, 8, 3), dtype=torch.uint8)},
            {},
        ),
        ("double", Double, {"x": normal(ROWS, 6, scale=1000).double()}, {}),
        ("grid-sample", Sampled, {"x": normal(ROWS, 2, 7, 6), "grid": normal(ROWS, 5, 5, 2)}, {}),
        ("windows", Windows, {"x": normal(ROWS, 12)}, {}),
    ]
    for name, make, inputs, axes in cases:
        torch.manual_seed(11)
        model = make().eval()
        for exporter in ["script", "dynamo"]:
            try:
                exported = export(model, inputs, axes, exporter == "dynamo")
            except Exception as error:
                print(f"{name}, {exporter}: {' '.join(str(error).split())[:200]}")
                continue
            data = {key: value.numpy() for key, value in inputs.items()}
            add(f"torch-{name}-{exporter}", exported, data, axes, f"torch-{name}")
        if name in HALVES:
            halve(name, data, axes)


# The networks that ONNX Runtime runs after conversion.
HALVES = ["mobile-block", "resnet", "temporal", "causal", "mixture", "masked", "rnn-relu"]


def halve(name, inputs, axes):
    for kept, kind in [(False, ""), (True, "-kept-edges")]:
        graph = onnx.load(folder / f"torch-{name}-script.onnx")
        converted = float16.convert_float_to_float16(graph, keep_io_types=kept)
        narrowed = {
            key: v.astype(np.float16) if not kept and v.dtype == np.float32 else v
            for key, v in inputs.items()
        }
        try:
            session = onnxruntime.InferenceSession(
                converted.SerializeToString(), providers=["CPUExecutionProvider"]
            )
            session.run(None, narrowed)
        except Exception as error:
            print(f"{name}{kind}, float16: {' '.join(str(error).split())[:200]}")
            continue
        add(f"float16-{name}{kind}", converted, narrowed, axes)


def export(model, inputs, axes, dynamo):
    names = list(inputs)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        if dynamo:
            batch = torch.export.Dim("batch", min=1, max=4096)
            shapes = tuple({axes.get(name, 0): batch} for name in names)
            torch.onnx.export(
                model,
                tuple(inputs.values()),
                path,
                input_names=names,
                dynamic_shapes=shapes,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        else:
            outputs = model(*inputs.values())
            count = len(outputs) if isinstance(outputs, tuple) else 1
            output_names = [f"output{n}" for n in range(count)]
            free = {name: {axes.get(name, 0): "batch"} for name in names}
            torch.onnx.export(
                model,
                tuple(inputs.values()),
                path,
                input_names=names,
                output_names=output_names,
                dynamic_axes=free,
                dynamo=False,
                opset_version=17,
            )
        return onnx.load(path)


# Gradient boosting


def rows(features, missing=False, seed=3):
    """Seven rows with large and small values."""
    generator = np.random.default_rng(seed)
    x = (
        generator.normal(size=(ROWS, features))
        * generator.choice([0.1, 1, 100], size=(ROWS, features))
    ).astype(np.float32)
    if missing:
        x[generator.random(x.shape) < 0.25] = np.nan
    return x


def training(classes, missing=False):
    if classes:
        x, y = make_classification(600, 10, n_informative=6, n_classes=classes, random_state=5)
    else:
        x, y = make_regression(600, 10, noise=5.0, random_state=5)
    x = x.astype(np.float32)
    if missing:
        x[np.random.default_rng(1).random(x.shape) < 0.2] = np.nan
    return x, y


def boosted():
    shape = [("x", FloatTensorType([None, 10]))]
    small = {"n_estimators": 12, "max_depth": 4, "random_state": 2}
    for name, model, classes, missing in [
        ("classifier", lightgbm.LGBMClassifier(**small, verbose=-1), 2, False),
        ("classifier-three", lightgbm.LGBMClassifier(**small, verbose=-1), 3, True),
        ("regressor", lightgbm.LGBMRegressor(**small, verbose=-1), 0, True),
        ("poisson", lightgbm.LGBMRegressor(**small, verbose=-1, objective="poisson"), 0, False),
        ("dart", lightgbm.LGBMRegressor(**small, verbose=-1, boosting_type="dart"), 0, False),
        (
            "zero-as-missing",
            lightgbm.LGBMRegressor(**small, verbose=-1, zero_as_missing=True),
            0,
            True,
        ),
    ]:
        x, y = training(classes, missing)
        model.fit(x, np.abs(y) if name == "poisson" else y)
        add(
            f"lightgbm-{name}",
            convert_lightgbm(model, initial_types=shape, target_opset=15),
            {"x": rows(10, missing)},
        )
    for name, model, classes, missing in [
        ("classifier", xgboost.XGBClassifier(**small), 2, True),
        ("classifier-three", xgboost.XGBClassifier(**small), 3, False),
        ("regressor", xgboost.XGBRegressor(**small), 0, True),
        ("logistic", xgboost.XGBRegressor(**small, objective="reg:logistic"), 0, False),
        ("forest", xgboost.XGBRFRegressor(**small), 0, False),
        ("random-forest-classifier", xgboost.XGBRFClassifier(**small), 2, False),
    ]:
        x, y = training(classes, missing)
        model.fit(x, (y > 0).astype(float) if name == "logistic" else y)
        add(
            f"xgboost-{name}",
            convert_xgboost(model, initial_types=shape, target_opset=15),
            {"x": rows(10, missing)},
        )
    for name, model, classes in [
        (
            "classifier",
            catboost.CatBoostClassifier(iterations=12, depth=4, verbose=0, random_seed=2),
            2,
        ),
        (
            "classifier-four",
            catboost.CatBoostClassifier(iterations=12, depth=4, verbose=0, random_seed=2),
            4,
        ),
        (
            "regressor",
            catboost.CatBoostRegressor(iterations=12, depth=4, verbose=0, random_seed=2),
            0,
        ),
        (
            "quantile",
            catboost.CatBoostRegressor(
                iterations=12, depth=4, verbose=0, random_seed=2, loss_function="Quantile:alpha=0.9"
            ),
            0,
        ),
    ]:
        x, y = training(classes)
        model.fit(x, y)
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "model.onnx"
            model.save_model(str(path), format="onnx")
            exported = onnx.load(path)
        add(f"catboost-{name}", exported, {exported.graph.input[0].name: rows(10)})


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.manual_seed(7)
    boosted()
    pytorch()
    (folder / "exports.json").write_text(json.dumps(index, indent=1) + "\n")
    print(
        f"{len(index)} graphs, {sum(path.stat().st_size for path in folder.iterdir() if path.is_file())} bytes"
    )
