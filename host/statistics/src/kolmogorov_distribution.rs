//! The distribution of the two-sided one-sample Kolmogorov-Smirnov statistic `D` of `n` values.
//!
//! No single formula is accurate for every `n` and `d`. Simard and L'Ecuyer 2011 ("Computing the
//! two-sided Kolmogorov-Smirnov distribution", Journal of Statistical Software 39(11)) divide the
//! plane of `n` and `d` among several, and so does SciPy. The boundaries here are the same, as the
//! approximations differ by more than 1e-9 at them.

use std::f64::consts::PI;

use statrs::function::factorial::ln_factorial;

/// Maximum `n` for which the result is exact.
const EXACT: f64 = 140.0;
/// Maximum `n d^2` of the matrix formula, for `n` up to [`EXACT`]. Above it the two one-sided
/// events are taken for exclusive, as they almost never occur together (Miller 1956).
const EXACT_MATRIX: f64 = 4.0;
/// Minimum `n d^2` from which they are taken for exclusive, for larger `n`.
const ONE_SIDED: f64 = 2.2;
/// Minimum `n d^2` for which the tail is 0 in FP64.
const UNDERFLOW: f64 = 370.0;
/// Maximum `n d^1.5` and maximum `n` for which the matrix is small enough.
const MATRIX: (f64, f64) = (1.4, 100_000.0);

/// `P(D >= d)` for `n` values; `n` is a whole number.
pub(crate) fn upper_tail(n: f64, d: f64) -> f64 {
    if n < 1.0 || d <= 0.0 {
        return 1.0;
    }
    if d >= 1.0 {
        return 0.0;
    }
    let (t, scaled) = (n * d, n * d * d);
    let tail = if t <= 0.5 {
        1.0
    } else if t <= 1.0 {
        // Ruben and Gambino 1982: n!/n^n (2t - 1)^n.
        1.0 - (ln_factorial(whole(n)) - n * n.ln() + n * (2.0 * t - 1.0).ln()).exp()
    } else if t >= n - 1.0 {
        2.0 * (1.0 - d).powf(n)
    } else if d >= 0.5 || (n <= EXACT && scaled > EXACT_MATRIX) {
        2.0 * one_sided(n, d)
    } else if n <= EXACT {
        1.0 - matrix(n, d)
    } else if scaled >= UNDERFLOW {
        0.0
    } else if scaled >= ONE_SIDED {
        2.0 * one_sided(n, d)
    } else if n * d.powf(1.5) <= MATRIX.0 && n <= MATRIX.1 {
        1.0 - matrix(n, d)
    } else {
        1.0 - pelz_good(n, d)
    };
    tail.clamp(0.0, 1.0)
}

/// `P(D+ >= d)` of the one-sided statistic: a sum of `n (1 - d)` positive terms (Birnbaum and
/// Tingey 1951).
fn one_sided(n: f64, d: f64) -> f64 {
    let terms = whole((n * (1.0 - d)).floor());
    let ln_n_factorial = ln_factorial(whole(n));
    let term = |j: u64| {
        let (x, count) = (crate::float(j), n - crate::float(j));
        let (up, down) = (d + x / n, 1.0 - d - x / n);
        if down <= 0.0 {
            return 0.0;
        }
        let ways = ln_n_factorial - ln_factorial(j) - ln_factorial(whole(count));
        (ways + (x - 1.0) * up.ln() + count * down.ln()).exp()
    };
    d * (0..=terms).map(term).sum::<f64>()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a whole number that is not negative"
)]
fn whole(x: f64) -> u64 {
    x.max(0.0) as u64
}

/// `P(D < d)`, exact: Durbin's matrix (1973) to the power `n`, by the algorithm of Marsaglia, Tsang
/// and Wang 2003 ("Evaluating Kolmogorov's distribution", Journal of Statistical Software 8(18)).
fn matrix(n: f64, d: f64) -> f64 {
    let k = whole((n * d).ceil());
    let size = usize::try_from(2 * k - 1).unwrap_or(usize::MAX);
    let h = crate::float(k) - n * d;
    let mut inverse_factorials = vec![1.0; size + 1];
    for i in 1..=size {
        inverse_factorials[i] = inverse_factorials[i - 1] / crate::float(i as u64);
    }
    let mut base = Matrix::zero(size);
    for row in 0..size {
        for column in 0..=(row + 1).min(size - 1) {
            base.cells[row * size + column] = inverse_factorials[row + 1 - column];
        }
    }
    let power = |exponent: usize| h.powf(crate::float(exponent as u64));
    for i in 0..size {
        base.cells[i * size] -= power(i + 1) * inverse_factorials[i + 1];
        base.cells[(size - 1) * size + i] -= power(size - i) * inverse_factorials[size - i];
    }
    let corner = (2.0 * h - 1.0).max(0.0).powf(crate::float(size as u64));
    base.cells[(size - 1) * size] += corner * inverse_factorials[size];

    let middle = usize::try_from(k - 1).unwrap_or_default();
    let (mut result, mut left) = (Matrix::identity(size), whole(n));
    while left > 0 {
        if left % 2 == 1 {
            result = result.times(&base);
        }
        base = base.times(&base);
        base.scale(middle);
        result.scale(middle);
        left /= 2;
    }
    // Times n! / n^n and the power of two of the result.
    let value = result.cells[middle * size + middle];
    let ln = value.ln() + result.exponent * std::f64::consts::LN_2;
    (ln + ln_factorial(whole(n)) - n * n.ln()).exp()
}

/// A square matrix times two to the power `exponent`.
struct Matrix {
    size: usize,
    cells: Vec<f64>,
    exponent: f64,
}

/// Cells are scaled below two to this power, so that their squares do not overflow.
const EXPONENT: i32 = 128;

impl Matrix {
    fn zero(size: usize) -> Self {
        Self { size, cells: vec![0.0; size * size], exponent: 0.0 }
    }

    fn identity(size: usize) -> Self {
        let mut identity = Self::zero(size);
        identity.cells.iter_mut().step_by(size + 1).for_each(|cell| *cell = 1.0);
        identity
    }

    fn times(&self, other: &Self) -> Self {
        let size = self.size;
        let mut product = Self::zero(size);
        for (row, cells) in product.cells.chunks_exact_mut(size).enumerate() {
            for (inner, &factor) in self.cells[row * size..][..size].iter().enumerate() {
                for (cell, &term) in cells.iter_mut().zip(&other.cells[inner * size..][..size]) {
                    *cell += factor * term;
                }
            }
        }
        product.exponent = self.exponent + other.exponent;
        product
    }

    /// Moves a power of two into the exponent if the cell at `middle` is large.
    fn scale(&mut self, middle: usize) {
        if self.cells[middle * self.size + middle] > 2.0_f64.powi(EXPONENT) {
            self.cells.iter_mut().for_each(|cell| *cell *= 2.0_f64.powi(-EXPONENT));
            self.exponent += f64::from(EXPONENT);
        }
    }
}

/// `P(D < d)` by the expansion of Pelz and Good 1976 ("Approximating the lower tail-areas of the
/// Kolmogorov-Smirnov one-sample statistic", Journal of the Royal Statistical Society B 38):
/// Kolmogorov's limit and three terms in powers of `1/sqrt(n)`, in the notation of Simard and
/// L'Ecuyer.
fn pelz_good(n: f64, d: f64) -> f64 {
    let z = n.sqrt() * d;
    let (z2, z4, z6, z8) = (z.powi(2), z.powi(4), z.powi(6), z.powi(8));
    let (pi2, pi4, pi6) = (PI.powi(2), PI.powi(4), PI.powi(6));
    let mut sums = [0.0_f64; 4];
    // Terms decrease as exp(-(pi^2/8) m^2/z^2), so these are more than enough.
    let terms = whole((16.0 * z / PI).ceil());
    for k in (1..=terms).rev() {
        let m2 = crate::float(2 * k - 1).powi(2);
        let (m4, m6) = (m2.powi(2), m2.powi(3));
        let weight = (-pi2 / 8.0 / z2 * m2).exp();
        sums[0] += weight;
        sums[1] += weight * (pi2 / 4.0 * m2 - z2);
        sums[2] += weight
            * (6.0 * z6
                + 2.0 * z4
                + pi2 / 4.0 * (2.0 * z4 - 5.0 * z2) * m2
                + pi4 / 16.0 * (1.0 - 2.0 * z2) * m4);
        sums[3] += weight
            * (-30.0 * z6 - 90.0 * z8
                + pi2 / 4.0 * (135.0 * z4 - 96.0 * z6) * m2
                + pi4 / 16.0 * (212.0 * z4 - 60.0 * z2) * m4
                + pi6 / 64.0 * (5.0 - 30.0 * z2) * m6);
    }
    let (mut more2, mut more3) = (0.0, 0.0);
    for k in (1..=terms).rev() {
        let k2 = crate::float(k).powi(2);
        let weight = (-pi2 / 2.0 / z2 * k2).exp() * k2;
        more2 += weight;
        more3 += weight * (3.0 * z2 - pi2 * k2);
    }
    let root = (2.0 * PI).sqrt();
    let k0 = root / z * sums[0];
    let k1 = root / (6.0 * z4) * sums[1];
    let k2 = root / (72.0 * z.powi(7)) * sums[2] - root * pi2 / (36.0 * z.powi(3)) * more2;
    let k3 = root / (6480.0 * z.powi(10)) * sums[3] + root * pi2 / (216.0 * z6) * more3;
    k0 + k1 / n.sqrt() + k2 / n + k3 / n.powf(1.5)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tails_are_those_published() {
        // Marsaglia, Tsang and Wang 2003, section 3: K(10, 0.274) = 0.6284796154565...
        assert!((1.0 - upper_tail(10.0, 0.274) - 0.628_479_615_456_5).abs() < 1e-12);
        // The 5 % point of Kolmogorov's limit is 1.3581 / sqrt(n).
        let tail = upper_tail(1e6, 1.3581 / 1e3);
        assert!((tail - 0.05).abs() < 1e-3, "{tail}");
    }

    #[test]
    fn tails_are_those_of_scipy() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../tests/vectors/vectors.json")).unwrap();
        for case in vectors["tails"].as_array().unwrap() {
            let [n, d, expected] = ["n", "d", "tail"].map(|key| case[key].as_f64().unwrap());
            let found = upper_tail(n, d);
            assert!((found - expected).abs() < 1e-9, "{n} {d}: {found}, not {expected}");
        }
    }

    proptest! {
        #[test]
        fn the_tail_decreases_from_one_to_zero(n in 1_u32..3_000, d in 0.0..1.0_f64, more in 0.0..0.1_f64) {
            let n = f64::from(n);
            let (tail, less) = (upper_tail(n, d), upper_tail(n, d + more));
            prop_assert!((0.0..=1.0).contains(&tail));
            // Formulas differ by up to 1e-6 at their boundaries.
            prop_assert!(less <= tail + 1e-6, "{n} {d} {more}: {tail} {less}");
        }
    }
}
