"""Writes experiments.json: statistics of experiments that SciPy and NumPy computed, for
tests/experiments.rs.

    python3 -m venv .venv && .venv/bin/pip install numpy==2.4.6 scipy==1.17.1
    .venv/bin/python host/statistics/tests/vectors/experiments.py
"""

import json
from pathlib import Path

import numpy as np
import scipy
from scipy import integrate, optimize, special, stats

SEED = 21


def boundary_case(n_best, alpha):
    """Waudby-Smith et al.: rho by the Lambert W function, then theorem 2.2."""
    mixture = (-special.lambertw(-(alpha**2) / np.e, k=-1).real - 1) / n_best
    sizes = [10, 100, 1000, 100_000]
    factors = [
        np.sqrt(n)
        * np.sqrt(2 * (n * mixture + 1) / (n**2 * mixture) * np.log(np.sqrt(n * mixture + 1) / alpha))
        for n in sizes
    ]
    return {"n_best": n_best, "alpha": alpha, "mixture": mixture, "sizes": sizes, "factors": factors}


def samples(rng, kind, n):
    if kind == "ratio":
        k = rng.integers(1, 9, size=n).astype(float)
        return rng.binomial(k.astype(int), 0.4).astype(float), k
    x = rng.normal(3, 2, size=n)
    return 1.5 * x + rng.normal(size=n), x


def difference_case(rng, kind, n, m):
    (y0, x0), (y1, x1) = samples(rng, kind, n), samples(rng, kind, m)
    theta = 0.0
    if kind == "mean":
        values = [y0, y1]
    elif kind == "adjusted":
        products = sum(np.cov(y, x)[0, 1] * (len(y) - 1) for y, x in [(y0, x0), (y1, x1)])
        squares = sum(np.var(x) * len(x) for x in [x0, x1])
        theta = products / squares
        center = np.concatenate([x0, x1]).mean()
        values = [y0 - theta * (x0 - center), y1 - theta * (x1 - center)]
    else:
        means = [y0.sum() / x0.sum(), y1.sum() / x1.sum()]
        values = [means[0] + (y0 - means[0] * x0) / x0.mean(), means[1] + (y1 - means[1] * x1) / x1.mean()]
    # Welch's test has the difference, and its standard error in the statistic.
    test = stats.ttest_ind(values[1], values[0], equal_var=False)
    means = [values[0].mean(), values[1].mean()]
    return {
        "kind": kind,
        "control": [y0.tolist(), x0.tolist()],
        "treatment": [y1.tolist(), x1.tolist()],
        "theta": theta,
        "information": 4 / sum(1 / (x.sum() if kind == "ratio" else len(x)) for x in [x0, x1]),
        "means": means,
        "standard_error": (means[1] - means[0]) / test.statistic,
    }


def strata_case(rng, sizes, deviations):
    """Cochran: the weighted mean of the strata's differences, with variances moderated as by Smyth."""
    arms = [
        [rng.normal(index, deviation, size=pair[arm]) for index, (pair, deviation) in enumerate(zip(sizes, deviations))]
        for arm in range(2)
    ]
    variances = []
    for arm in arms:
        degrees = np.array([len(y) - 1 for y in arm])
        squares = np.array([np.var(y) * len(y) for y in arm])
        variances.append((squares + 10 * squares.sum() / degrees.sum()) / (degrees + 10))
    weights = np.array([stats.hmean(pair) / 2 for pair in sizes])
    differences = [b.mean() - a.mean() for a, b in zip(*arms)]
    of_means = sum(v / np.array([len(y) for y in arm]) for v, arm in zip(variances, arms))
    return {
        "control": [y.tolist() for y in arms[0]],
        "treatment": [y.tolist() for y in arms[1]],
        "information": 4 * weights.sum(),
        "difference": np.average(differences, weights=weights),
        "standard_error": np.sqrt((weights**2 * of_means).sum()) / weights.sum(),
    }


def ratio_case(rng, shares, n, true_shares):
    units = rng.multinomial(n, true_shares)
    prior = 100 * np.array(shares)
    # The Dirichlet-multinomial distribution has the multinomial coefficient that cancels.
    evidence = stats.dirichlet_multinomial.logpmf(units, prior, n) - stats.multinomial.logpmf(units, n, shares)
    fit = stats.chisquare(units, np.array(shares) * n)
    return {"units": units.tolist(), "shares": shares, "log_evidence": evidence, "chi_squared_p": fit.pvalue}


def best_case(kind, parameters):
    dists = [stats.beta(a, b) if kind == "beta" else stats.norm(a, b) for a, b in parameters]
    low = min(d.mean() - 12 * d.std() for d in dists)
    high = max(d.mean() + 12 * d.std() for d in dists)
    if kind == "beta":
        low, high = max(low, 0), min(high, 1)
    best = []
    for index, d in enumerate(dists):
        others = [o for i, o in enumerate(dists) if i != index]
        density = lambda x: d.pdf(x) * np.prod([o.cdf(x) for o in others])
        points = sorted({p for o in dists for p in (o.mean() - 3 * o.std(), o.mean(), o.mean() + 3 * o.std()) if low < p < high})
        best.append(integrate.quad(density, low, high, points=points, limit=500, epsabs=1e-13, epsrel=1e-13)[0])
    return {"kind": kind, "parameters": parameters, "best": best}


def guard_case(limit, known, batch):
    a, b = [(bad + 0.5) / (of + 1) for bad, of in known]
    n_a, n_b = batch[0][1], batch[1][1]
    slope = lambda p: n_a * (p - a) / (p * (1 - p)) + n_b * (p + limit - b) / ((p + limit) * (1 - p - limit))
    p = optimize.brentq(slope, a, b - limit, xtol=1e-16, rtol=1e-15)
    log_e = sum(
        stats.binom.logpmf(bad, of, star) - stats.binom.logpmf(bad, of, null)
        for (bad, of), star, null in zip(batch, [a, b], [p, p + limit])
    )
    return {"limit": limit, "known": known, "batch": batch, "log_e": log_e}


def quantile_case(rng, q):
    bounds = np.cumsum(rng.uniform(0.1, 2.0, size=8))
    counts = rng.integers(1, 50, size=8)
    cumulative = np.concatenate([[0], counts.cumsum()])
    value = np.interp(q * cumulative[-1], cumulative, np.concatenate([[0.0], bounds]))
    return {"q": q, "bounds": bounds.tolist(), "counts": counts.tolist() + [0], "quantile": value}


def main():
    rng = np.random.default_rng(SEED)
    betas = [
        [(1, 1), (2, 1)],
        [(31, 71), (41, 61)],
        [(501, 9501), (551, 9451), (451, 9551)],
        [(2.5, 8.25), (1.0, 40.0), (3.0, 3.0), (10.0, 1.0)],
        [(250_001, 250_001), (250_601, 249_401), (250_201, 249_801)],
        [(1_001, 999_001), (1_101, 998_901)],
    ]
    normals = [[(0.0, 1.0), (0.5, 0.1)], [(10.0, 2.0), (11.0, 2.0), (9.0, 0.5)], [(1e-3, 1e-4), (1.1e-3, 2e-4)]]
    guards = [
        (0.0, [(10, 1000), (40, 800)], [(1, 90), (6, 110)]),
        (0.01, [(0, 500), (25, 500)], [(0, 100), (5, 100)]),
        (0.01, [(0, 9000), (50, 1000)], [(0, 900), (4, 100)]),
        (0.2, [(100, 1000), (400, 1000)], [(10, 100), (28, 100)]),
    ]
    vectors = {
        "boundaries": [boundary_case(n, a) for n in [100, 2000, 1e6] for a in [0.001, 0.025, 0.05, 0.2]],
        "differences": [
            difference_case(rng, kind, n, m)
            for kind in ["mean", "adjusted", "ratio"]
            for n, m in [(5, 8), (40, 25)]
        ],
        "strata": [
            strata_case(rng, [(9, 4), (6, 12)], [1.0, 1.0]),
            strata_case(rng, [(30, 3), (10, 10), (1, 1), (5, 20)], [5.0, 1.0, 1.0, 0.2]),
        ],
        "ratios": [
            ratio_case(rng, *case)
            for case in [
                ([0.5, 0.5], 1000, [0.5, 0.5]),
                ([0.5, 0.5], 1000, [0.45, 0.55]),
                ([0.99, 0.01], 20_000, [0.99, 0.01]),
                ([0.7, 0.2, 0.1], 5000, [0.68, 0.2, 0.12]),
                ([0.25] * 4, 1_000_000, [0.25] * 4),
            ]
        ],
        "bests": [best_case("beta", p) for p in betas] + [best_case("normal", p) for p in normals],
        "guards": [guard_case(*case) for case in guards],
        "quantiles": [quantile_case(rng, q) for q in [0.01, 0.5, 0.95, 0.999]],
    }
    groups = [f'  "scipy": {json.dumps(scipy.__version__)}']
    for name, cases in vectors.items():
        lines = ",\n".join("    " + json.dumps(case) for case in cases)
        groups.append(f'  "{name}": [\n{lines}\n  ]')
    text = "{\n" + ",\n".join(groups) + "\n}\n"
    (Path(__file__).parent / "experiments.json").write_text(text)


main()
