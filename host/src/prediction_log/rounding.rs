//! Rounds values to multiples of a step, in decimal arithmetic: what is rounded is the number as the
//! log would show it, and the result has no more decimals than the step.

/// Number of the digits of an `f64` in its shortest form, at most.
const DIGITS: i32 = 17;

/// A positive decimal number, `mantissa` × 10^`exponent`, of whose multiples values are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundingStep {
    mantissa: i128,
    exponent: i32,
}

/// `mantissa` × 10^`exponent`.
#[derive(Clone, Copy)]
struct Decimal {
    mantissa: i128,
    exponent: i32,
}

impl Decimal {
    /// Reads a number in the form `-1.25e-3`.
    fn parse(text: &str) -> Option<Self> {
        let (digits, exponent) = text.split_once('e')?;
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let mantissa = format!("{whole}{fraction}").parse().ok()?;
        let decimals = i32::try_from(fraction.len()).ok()?;
        Some(Self { mantissa, exponent: exponent.parse::<i32>().ok()? - decimals })
    }
}

impl RoundingStep {
    /// The step of this size; `None` unless it is finite and positive.
    #[must_use]
    pub fn new(size: f64) -> Option<Self> {
        let Decimal { mantissa, exponent } = Decimal::parse(&format!("{size:e}"))?;
        (mantissa > 0).then_some(Self { mantissa, exponent })
    }

    /// The multiple that is nearest to `value`, halves away from zero. Unchanged are NaN, the
    /// infinities, and numbers so large that the distance to the next one exceeds the step.
    #[must_use]
    pub fn round_f64(self, value: f64) -> f64 {
        let parse = |text: String| text.parse().ok().filter(|rounded: &f64| rounded.is_finite());
        self.nearest(&format!("{value:e}")).into_iter().flatten().find_map(parse).unwrap_or(value)
    }

    /// As [`Self::round_f64`].
    #[must_use]
    pub fn round_f32(self, value: f32) -> f32 {
        let parse = |text: String| text.parse().ok().filter(|rounded: &f32| rounded.is_finite());
        self.nearest(&format!("{value:e}")).into_iter().flatten().find_map(parse).unwrap_or(value)
    }

    /// The multiple that is nearest to `value`, halves away from zero, or the next one towards zero
    /// if that is out of range. A multiple that is no integer is rounded in turn.
    #[must_use]
    pub fn round_i64(self, value: i64) -> i64 {
        let Self { mantissa, exponent } = self;
        if -exponent > DIGITS {
            // The step is below 0.1, so the nearest multiple rounds to the value.
            return value;
        }
        let limit = if value < 0 { i64::MIN } else { i64::MAX };
        let value = i128::from(value);
        if let Some(unit) = power_of_ten(-exponent) {
            let multiple = divide(value * unit, mantissa) * mantissa;
            return i64::try_from(divide(multiple, unit)).unwrap_or(limit);
        }
        let step = power_of_ten(exponent).and_then(|ten| mantissa.checked_mul(ten));
        // Without one in range, half a step is larger than any value.
        let Some(step) = step else { return 0 };
        let nearest = divide(value, step) * step;
        let candidates = [nearest, nearest - step * value.signum()];
        candidates.into_iter().find_map(|multiple| i64::try_from(multiple).ok()).unwrap_or(0)
    }

    /// The multiple nearest to the number `text`, and the next one towards zero, as texts that parse
    /// to them. `None` if `text` is no number, or is one of too many steps.
    fn nearest(self, text: &str) -> Option<[String; 2]> {
        let value = Decimal::parse(text)?;
        let Self { mantissa: step, exponent } = self;
        let shift = value.exponent - exponent;
        // value / step = value.mantissa * 10^shift / step
        let count = if shift >= 0 {
            divide(value.mantissa.checked_mul(power_of_ten(shift)?)?, step)
        } else {
            let divisor = power_of_ten(-shift).and_then(|ten| step.checked_mul(ten));
            // Without a divisor in range, the value's few digits are far below half a step.
            divisor.map_or(0, |divisor| divide(value.mantissa, divisor))
        };
        let multiple = |count: i128| Some(format!("{}e{exponent}", count.checked_mul(step)?));
        Some([multiple(count)?, multiple(count - count.signum())?])
    }
}

/// 10^`exponent`, unless it is negative or too large.
fn power_of_ten(exponent: i32) -> Option<i128> {
    10_i128.checked_pow(u32::try_from(exponent).ok()?)
}

/// The quotient rounded to an integer, halves away from zero. The divisor is positive.
fn divide(dividend: i128, divisor: i128) -> i128 {
    let (quotient, remainder) = (dividend / divisor, dividend % divisor);
    let up = remainder.abs() >= divisor - remainder.abs();
    if up { quotient + dividend.signum() } else { quotient }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn step(size: f64) -> RoundingStep {
        RoundingStep::new(size).unwrap()
    }

    #[test]
    fn number_becomes_the_nearest_multiple_halves_away_from_zero() {
        for (size, value, expected) in [
            (10.0, 34.9, 30.0),
            (10.0, 35.0, 40.0),
            (10.0, -35.0, -40.0),
            (0.1, 0.25, 0.3),
            (0.1, 0.15, 0.2),
            (0.1, 0.7 + 0.1, 0.8),
            (0.01, 0.980_170_6, 0.98),
            (0.3, 1.0, 0.9),
            (2.5, 6.3, 7.5),
            (1000.0, 1e-300, 0.0),
            (5e-324, 1e-323, 1e-323),
            (1e-10, 1e300, 1e300),
            (7.0, f64::MAX, f64::MAX),
            (1.5e308, f64::MAX, 1.5e308),
        ] {
            assert_eq!(step(size).round_f64(value), expected, "{value} by {size}");
        }
        assert_eq!(step(0.1).round_f32(0.980_170_6), 1.0);
        assert_eq!(step(0.01).round_f32(0.25), 0.25);
        assert_eq!(step(7e37).round_f32(f32::MAX), 2.8e38, "not an infinity");
        assert_eq!(step(0.1).round_f64(-0.04).to_string(), "0");
    }

    #[test]
    fn nan_and_infinities_are_unchanged() {
        assert!(step(10.0).round_f64(f64::NAN).is_nan() && step(10.0).round_f32(f32::NAN).is_nan());
        for value in [f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(step(10.0).round_f64(value), value);
        }
    }

    #[test]
    fn integer_stays_an_integer_in_range() {
        for (size, value, expected) in [
            (10.0, 34, 30),
            (10.0, -35, -40),
            (2.5, 3, 3),
            (2.5, 7, 8),
            (0.1, 7, 7),
            (1e-30, i64::MAX, i64::MAX),
            (1000.0, i64::MAX, 9_223_372_036_854_775_000),
            (1e19, i64::MAX, 0),
            (1e300, i64::MIN, 0),
            (4.0, i64::MIN, i64::MIN),
        ] {
            assert_eq!(step(size).round_i64(value), expected, "{value} by {size}");
        }
    }

    #[test]
    fn step_is_a_positive_number() {
        for size in [0.0, -0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(RoundingStep::new(size), None, "{size}");
        }
    }

    proptest! {
        #[test]
        fn rounded_number_is_near_and_has_no_more_decimals_than_the_step(
            value in -1e6_f64..1e6, decimals in 0_usize..6, mantissa in 1_u32..100,
        ) {
            let size: f64 = format!("{mantissa}e-{decimals}").parse().unwrap();
            let rounded = step(size).round_f64(value);
            prop_assert!((rounded - value).abs() <= size / 2.0 * (1.0 + 1e-9) + 1e-9);
            let text = rounded.to_string();
            let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
            prop_assert!(fraction.len() <= decimals, "{text}");
            let units: i128 = format!("{rounded:.decimals$}").replace('.', "").parse().unwrap();
            let divisor: i128 = format!("{size:.decimals$}").replace('.', "").parse().unwrap();
            prop_assert_eq!(units % divisor, 0, "{} is a multiple of {}", rounded, size);
            prop_assert_eq!(step(size).round_f64(rounded), rounded);
        }

        #[test]
        fn any_number_is_rounded_to_a_finite_one_once(value: f64, single: f32, size: f64) {
            let Some(step) = RoundingStep::new(size) else { return Ok(()) };
            let (rounded, once) = (step.round_f64(value), step.round_f32(single));
            prop_assert_eq!(rounded.is_finite(), value.is_finite());
            prop_assert_eq!(once.is_finite(), single.is_finite());
            if value.is_finite() {
                prop_assert_eq!(step.round_f64(rounded), rounded);
            }
        }

        #[test]
        fn rounded_integer_is_the_nearest_multiple(value: i64, size in 1_i64..1_000_000_000) {
            let rounded = i128::from(step(size as f64).round_i64(value));
            prop_assert_eq!(rounded % i128::from(size), 0);
            let distance = (rounded - i128::from(value)).abs();
            let at_the_end = value.unsigned_abs() > i64::MAX.unsigned_abs() - size.unsigned_abs();
            prop_assert!(distance * 2 <= i128::from(size) || at_the_end);
        }

        #[test]
        fn any_integer_is_rounded(value: i64, size: f64) {
            let Some(step) = RoundingStep::new(size) else { return Ok(()) };
            let rounded = step.round_i64(value);
            prop_assert!(rounded == 0 || rounded.signum() == value.signum());
        }
    }
}
