"""baseline.json: the distribution of each feature and output over the reference data.

models/README.md documents the format and the bins.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# Maximum elements of an output per row; wider outputs are not in the prediction log.
MAX_ELEMENTS = 256


def shortest(value: Any) -> float:
    """The shortest decimal that reads back as the same float32.

    >>> shortest(np.float32(0.1)), float(np.float32(0.1))
    (0.1, 0.10000000149011612)
    """
    return float(str(np.float32(value)))


def summarize_numbers(values: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Counts between decile edges, and moments. NaN is a missing value.

    >>> summary = summarize_numbers(np.array([1, 2, 2, np.nan], np.float32))
    >>> summary["edges"], summary["counts"], summary["missing"]
    ([1.5], [1, 2], 1)
    """
    present = values[~np.isnan(values)]
    distinct, times = np.unique(present, return_counts=True)
    numbers = np.array([shortest(value) for value in distinct])
    edges = decile_edges(numbers, times)
    bins = np.searchsorted(edges, numbers, side="right")
    counts = np.bincount(bins, weights=times, minlength=len(edges) + 1).astype(int)
    summary = {
        "kind": "number",
        "edges": edges,
        "counts": counts.tolist(),
        "count": len(present),
        "missing": len(values) - len(present),
    }
    if len(present):
        every = np.repeat(numbers, times)
        moments = {"mean": every.mean(), "std": every.std()}
        summary |= {name: shortest(moment) for name, moment in moments.items()}
        summary |= {"min": float(numbers[0]), "max": float(numbers[-1])}
        of_bins = [every[np.repeat(bins, times) == bin] for bin in range(len(edges) + 1)]
        if np.isfinite(every).all():
            summary["means"] = [shortest(x.mean()) if len(x) else 0.0 for x in of_bins]
            # Rounding would give equal values a deviation.
            summary["deviations"] = [
                shortest(x.std()) if len(x) and x[0] < x[-1] else 0.0 for x in of_bins
            ]
    return summary


def decile_edges(numbers: npt.NDArray[np.float64], times: npt.NDArray[np.int64]) -> list[float]:
    """Midpoints between each decile and the next greater number, so that no number is on an edge.
    Of a constant, the constant and the next greater number.

    Args:
        numbers: distinct, ascending.
        times: count of each number.
    """
    if len(numbers) == 0:
        return []
    if len(numbers) == 1 and np.isfinite(numbers[0]):
        # Any other value than the constant is in another bin.
        greater = np.nextafter(np.float32(numbers[0]), np.float32(np.inf))
        return [float(numbers[0]), shortest(greater)]
    every = np.repeat(numbers, times)
    deciles = np.unique(np.quantile(every, np.arange(1, 10) / 10, method="lower"))
    next_greater = np.searchsorted(numbers, deciles, side="right")
    edges = []
    for low, greater in zip(deciles, next_greater):
        if greater < len(numbers):
            high = numbers[greater]
            middle = shortest((low + high) / 2)
            # Adjacent floats have no midpoint: the edge is the greater one.
            edges.append(middle if low < middle <= high else float(high))
    return edges


def summarize_categories(values: npt.NDArray[Any], categories: list[int]) -> dict[str, Any]:
    """Counts of categories."""
    return {
        "kind": "category",
        "values": categories,
        "counts": [int((values == category).sum()) for category in categories],
        "count": len(values),
        "missing": 0,
    }


def names_of_elements(name: str, elements: int) -> list[str]:
    """Names of the elements of a row in the prediction log.

    >>> names_of_elements("label", 1), names_of_elements("p", 2)
    (['label'], ['p[0]', 'p[1]'])
    """
    return [name] if elements == 1 else [f"{name}[{index}]" for index in range(elements)]


def make_baseline(
    rows: npt.NDArray[np.float32],
    features: list[str],
    outputs: dict[str, npt.NDArray[Any]],
    classes: list[int] | None,
) -> dict[str, Any]:
    """Summaries of features and outputs, by name.

    Args:
        rows: the reference data.
        features: names of the columns.
        outputs: outputs of the graph for these rows.
        classes: values of the class output; ``None``: there is none.
    """
    summaries: dict[str, Any] = {}
    for name, values in outputs.items():
        of_rows = values.reshape(len(rows), -1)
        if values.dtype.kind in "iu" and classes is not None:
            summaries[name] = summarize_categories(of_rows[:, 0], classes)
        elif of_rows.shape[1] <= MAX_ELEMENTS:
            of_elements = names_of_elements(name, of_rows.shape[1])
            columns = zip(of_elements, of_rows.astype(np.float32).T)
            summaries |= {element: summarize_numbers(column) for element, column in columns}
    return {
        "rows": len(rows),
        "features": {
            name: summarize_numbers(column) for name, column in zip(features, rows.T, strict=True)
        },
        "outputs": summaries,
    }
