//! Class probabilities from those of each pair of classes: T.-F. Wu, C.-J. Lin, R. C. Weng,
//! "Probability Estimates for Multi-class Classification by Pairwise Coupling" (2004), their second
//! method, in FP32 and with the stopping rule of ONNX Runtime.

/// What a loop that does not come to rest is cut off at.
const MAX_ROUNDS: usize = 100;

/// `pairs[i * classes + j]` is the probability of class `i` against class `j`. Fills `p`, one for each
/// class; `quadratic` and `product` are scratch of `classes * classes` and `classes`.
pub(super) fn couple(pairs: &[f32], p: &mut [f32], quadratic: &mut [f32], product: &mut [f32]) {
    let classes = p.len();
    let at = |i: usize, j: usize| i * classes + j;
    p.fill(1.0 / classes as f32);
    for i in 0..classes {
        let others = (0..classes).filter(|&j| j != i);
        quadratic[at(i, i)] = others.map(|j| pairs[at(j, i)] * pairs[at(j, i)]).sum();
        for j in (0..classes).filter(|&j| j != i) {
            quadratic[at(i, j)] = -pairs[at(j, i)] * pairs[at(i, j)];
        }
    }
    let epsilon = 0.005 / classes as f32;
    for _ in 0..MAX_ROUNDS {
        let mut total = 0.0;
        for i in 0..classes {
            product[i] = (0..classes).map(|j| quadratic[at(i, j)] * p[j]).sum();
            total += p[i] * product[i];
        }
        let error = product.iter().map(|x| (x - total).abs()).fold(0.0, f32::max);
        if error < epsilon {
            break;
        }
        for i in 0..classes {
            let own = quadratic[at(i, i)];
            let step = (total - product[i]) / own;
            p[i] += step;
            let scale = 1.0 + step;
            total = (total + step * (step * own + 2.0 * product[i])) / scale / scale;
            for j in 0..classes {
                product[j] = (product[j] + step * quadratic[at(i, j)]) / scale;
                p[j] /= scale;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coupled(pairs: &[f32], classes: usize) -> Vec<f32> {
        let mut p = vec![0.0; classes];
        couple(pairs, &mut p, &mut vec![0.0; classes * classes], &mut vec![0.0; classes]);
        p
    }

    /// Pairs that agree with `p[i] / (p[i] + p[j])` give `p` back.
    #[test]
    fn consistent_pairs_give_their_probabilities() {
        let p = [0.5, 0.3, 0.2f32];
        let pairs: Vec<f32> = p.iter().flat_map(|a| p.iter().map(move |b| a / (a + b))).collect();
        for (got, expected) in coupled(&pairs, 3).iter().zip(p) {
            assert!((got - expected).abs() < 5e-3, "{got} is not {expected}");
        }
        assert!((coupled(&[0.0, 0.9, 0.1, 0.0], 2)[0] - 0.9).abs() < 5e-3);
    }

    /// As in ONNX Runtime, to which NaN is no error to go on for.
    #[test]
    fn of_nan_all_are_alike() {
        assert_eq!(coupled(&[f32::NAN; 9], 3), [1.0 / 3.0; 3]);
    }
}
