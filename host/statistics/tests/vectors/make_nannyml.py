"""Writes nannyml.json: expected accuracies that NannyML computed, for tests/nannyml.rs.

    python3 -m venv .venv && .venv/bin/pip install nannyml==0.13.1
    .venv/bin/python host/statistics/tests/vectors/make_nannyml.py
"""

import json
from pathlib import Path

import nannyml
import numpy as np
import pandas as pd
from nannyml.performance_estimation.confidence_based import cbpe

SEED = 21
REFERENCE, WINDOW = 300, 80


def rows(rng, classes, n, shift):
    """Probabilities of an overconfident classifier, its predictions, and the labels."""
    logits = rng.normal(size=(n, classes)) + shift * rng.normal(size=classes)
    softmax = lambda x: np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(classes, p=p) for p in softmax(logits)])
    probabilities = np.round(softmax(2.5 * logits + 0.3 * rng.normal(size=logits.shape)), 3)
    return probabilities, probabilities.argmax(axis=1), labels


def frame(probabilities, predictions, labels):
    classes = probabilities.shape[1]
    if classes == 2:
        data = pd.DataFrame({"p": probabilities[:, 1], "prediction": predictions, "label": labels})
        return data, "p", "classification_binary"
    columns = {f"class_{k}": f"p{k}" for k in range(classes)}
    data = pd.DataFrame(probabilities, columns=list(columns.values()))
    name = lambda values: [f"class_{k}" for k in values]
    return data.assign(prediction=name(predictions), label=name(labels)), columns, "classification_multiclass"


def case(rng, classes):
    reference, window = rows(rng, classes, REFERENCE, 0), rows(rng, classes, WINDOW, 1)
    if classes == 2:
        # The probability of the other class is the complement.
        for probabilities, *_ in [reference, window]:
            probabilities[:, 0] = 1 - probabilities[:, 1]
    data, columns, problem = frame(*reference)
    metrics = ["accuracy", "confusion_matrix"]
    estimator = nannyml.CBPE(
        y_pred_proba=columns,
        y_pred="prediction",
        y_true="label",
        problem_type=problem,
        metrics=metrics,
        chunk_size=WINDOW,
    )
    estimator.fit(data)
    analysis, *_ = frame(*window)
    result = estimator.estimate(analysis.drop(columns="label")).filter(period="analysis").to_df()
    confusion = (
        [["true_negative", "false_negative"], ["false_positive", "true_positive"]]
        if classes == 2
        else [
            [f"true_class_{actual}_pred_class_{predicted}" for actual in range(classes)]
            for predicted in range(classes)
        ]
    )
    row = lambda sample: [
        {"probabilities": p.tolist(), "predicted": int(y), "actual": int(label)}
        for p, y, label in zip(*sample)
    ]
    return {
        "classes": classes,
        "reference": row(reference),
        "window": row(window),
        "accuracy": float(result["accuracy", "value"].iloc[0]),
        "standard_error": float(result["accuracy", "sampling_error"].iloc[0]),
        "confusion": [[float(result[c, "value"].iloc[0]) for c in line] for line in confusion],
    }


def main():
    # NannyML does not calibrate if that helps little in its cross-validation. This host always does.
    cbpe.needs_calibration = lambda *arguments, **more: True
    rng = np.random.default_rng(SEED)
    cases = [case(rng, classes) for classes in [2, 3, 5]]
    lines = ",\n".join("    " + json.dumps(case) for case in cases)
    text = f'{{\n  "nannyml": "{nannyml.__version__}",\n  "cases": [\n{lines}\n  ]\n}}\n'
    (Path(__file__).parent / "nannyml.json").write_text(text)


main()
