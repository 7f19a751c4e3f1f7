"""Writes vectors.json: statistics that SciPy computed, for tests/scipy.rs.

    python3 -m venv .venv && .venv/bin/pip install numpy==2.4.6 scipy==1.17.1
    .venv/bin/python host/statistics/tests/vectors/make.py
"""

import json
from pathlib import Path

import numpy as np
import scipy
from scipy import stats
from scipy.spatial.distance import jensenshannon
from scipy.special import gammaln, logsumexp

SEED = 20
PSEUDOCOUNT = 0.5


def histograms(rng):
    """Pairs of counts: even and uneven bins, drift and none, empty bins, few and many values."""
    for bins in [2, 3, 10, 33]:
        for n, m in [(20, 30), (120, 200), (1000, 10_000), (1_000_000, 5_000)]:
            reference = rng.dirichlet(np.full(bins, 2.0))
            current = 0.7 * reference + 0.3 * rng.dirichlet(np.full(bins, 2.0))
            yield rng.multinomial(n, reference), rng.multinomial(m, reference)
            yield rng.multinomial(n, reference), rng.multinomial(m, current)
    yield np.array([0, 5, 10, 0]), np.array([3, 9, 1, 0])
    yield np.array([10, 0]), np.array([0, 7])
    yield np.array([7, 3, 90]), np.array([70, 30, 900])


def psi(a, b):
    """SciPy has no PSI. The null distribution is Yurdakul and Naranjo's."""
    keep = (a > 0) | (b > 0)
    a, b = a[keep], b[keep]
    n, m = a.sum(), b.sum()
    q = (a + PSEUDOCOUNT) / (a + PSEUDOCOUNT).sum()
    p = (b + PSEUDOCOUNT) / (b + PSEUDOCOUNT).sum()
    index = ((p - q) * np.log(p / q)).sum()
    return index, stats.chi2.sf(index / (1 / n + 1 / m), len(a) - 1)


def binned_case(a, b):
    keep = (a > 0) | (b > 0)
    table = stats.chi2_contingency(np.array([a[keep], b[keep]]), correction=False)
    index, p_value = psi(a, b)
    return {
        "reference": a.tolist(),
        "current": b.tolist(),
        "psi": [index, p_value],
        "jensen_shannon": jensenshannon(a, b, base=2),
        "ks": np.abs(a.cumsum() / a.sum() - b.cumsum() / b.sum()).max(),
        "homogeneity": [table.statistic, table.pvalue],
    }


def fit_case(rng):
    bins = int(rng.integers(2, 8))
    expected = rng.dirichlet(np.full(bins, 5.0))
    observed = rng.multinomial(int(rng.integers(50, 5000)), rng.dirichlet(np.full(bins, 50.0)))
    found = stats.chisquare(observed, expected * observed.sum())
    shares = expected.tolist()
    return {"observed": observed.tolist(), "expected": shares, "fit": [found.statistic, found.pvalue]}


def share_case(a, n, b, m):
    table = np.array([[a, n - a], [b, m - b]])
    least = min(n, m) * min(a + b, n + m - a - b) / (n + m)
    exact = least < 5
    test = stats.fisher_exact(table) if exact else stats.chi2_contingency(table, correction=False)
    return {"shares": [[a, n], [b, m]], "exact": exact, "p_value": test.pvalue}


def distance_cases(rng):
    """Weighted samples, with ties and values without weight."""
    for n, m in [(1, 1), (2, 7), (30, 40), (200, 10)]:
        a, b = np.round(rng.normal(size=n), 1), np.round(rng.normal(0.4, 2, size=m), 1)
        v, w = rng.integers(1, 9, size=n), np.append(rng.uniform(size=m - 1), 0.5)
        w[m // 2 : m - 1] *= rng.integers(0, 2, size=m - 1 - m // 2)
        distance = stats.wasserstein_distance(a, b, v, w)
        sample = lambda values, weights: [list(map(float, pair)) for pair in zip(values, weights)]
        yield {"a": sample(a, v), "b": sample(b, w), "distance": distance}


def ln_dirichlet_multinomial(counts, parameters):
    """The probability of a sequence: without the multinomial coefficient."""
    terms = gammaln(parameters + counts) - gammaln(parameters)
    return gammaln(parameters.sum()) - gammaln((parameters + counts).sum()) + terms.sum()


def normal_between(low, high):
    """Of the tail that has more digits."""
    lower = stats.norm.cdf(high) - stats.norm.cdf(low)
    return np.where(low > 0, stats.norm.sf(low) - stats.norm.sf(high), lower)


def evidence_case(reference, counts, ordered):
    """The formulas of src/evidence.rs."""
    ends = np.zeros(len(reference))
    ends[[0, -1]] = 0.5
    null = np.maximum(reference + ends, 0.5) if ordered else reference + 0.5
    shares = null / null.sum()
    near = [shares * 4.0**k for k in range(1, 7) if 4.0**k < null.sum() / 2]
    families = [[np.full(len(reference), 0.5), *near]]
    if ordered:
        edges = stats.norm.ppf(np.minimum(shares.cumsum()[:-1], 1))
        moves = [(sign * shift, 1) for shift in [0.125, 0.25, 0.5, 1, 2] for sign in [1, -1]]
        moves += [(0, stretch) for stretch in [0.5, 0.75, 1.333, 2]]
        ends = [np.concatenate([[-np.inf], (edges - a) / b, [np.inf]]) for a, b in moves]
        moved = [np.maximum(normal_between(z[:-1], z[1:]), 1e-9) for z in ends]
        families.append([null.sum() * p / p.sum() for p in moved])
    ln = [
        ln_dirichlet_multinomial(counts, alternative) - np.log(len(families) * len(family))
        for family in families
        for alternative in family
    ]
    return {
        "reference": reference.tolist(),
        "counts": counts.tolist(),
        "ordered": ordered,
        "ln": logsumexp(ln) - ln_dirichlet_multinomial(counts, null),
    }


def weighted_case(rng):
    """Weighted counts, and the size of an unweighted sample of the same precision."""
    weights = rng.uniform(size=300)
    reference = rng.integers(1, 100, size=10)
    counts = np.bincount(rng.integers(0, 10, size=300), weights, minlength=10)
    size = weights.sum() ** 2 / (weights**2).sum()
    scaled = counts * size / counts.sum()
    index, p_value = psi(reference, scaled)
    table = stats.chi2_contingency(np.array([reference, scaled]), correction=False)
    return {
        "reference": reference.tolist(),
        "weights": [weights.sum(), (weights**2).sum(), size],
        "counts": scaled.tolist(),
        "psi": [index, p_value],
        "jensen_shannon": jensenshannon(reference, scaled, base=2),
        "homogeneity": [table.statistic, table.pvalue],
    }


def main():
    rng = np.random.default_rng(SEED)
    shares = [(0, 120, 1, 1000), (0, 1_000_000, 1, 200), (3, 50, 30, 200), (60, 100, 40, 100)]
    shares += [(1, 10, 9, 10), (500, 10_000, 700, 10_000), (10, 10, 3, 9), (2, 400, 40, 500)]
    shares += [(119, 120, 1000, 1000), (5, 1_000_000, 12, 10_000)]
    vectors = {
        "scipy": scipy.__version__,
        "binned": [binned_case(a, b) for a, b in histograms(rng)],
        "fits": [fit_case(rng) for _ in range(10)],
        "shares": [share_case(*case) for case in shares],
        "distances": list(distance_cases(rng)),
        "evidence": [
            evidence_case(a, b, ordered)
            for a, b in list(histograms(rng))[::3]
            for ordered in [False, True]
        ],
        "weighted": [weighted_case(rng) for _ in range(3)],
    }
    groups = []
    for name, value in vectors.items():
        if isinstance(value, list):
            lines = ",\n".join("    " + json.dumps(case) for case in value)
            groups.append(f'  "{name}": [\n{lines}\n  ]')
        else:
            groups.append(f'  "{name}": {json.dumps(value)}')
    text = "{\n" + ",\n".join(groups) + "\n}\n"
    (Path(__file__).parent / "vectors.json").write_text(text)


main()
