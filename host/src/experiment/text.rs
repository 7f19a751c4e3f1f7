//! Numbers, times and reasons as texts, for the journal, the verdict and the terminal.

use spinfer_experiment::format::{Guardrail, GuardrailMetric, duration_text};

use super::guardrails::GuardrailStatus;
use crate::prediction_log::times;

/// A number with four significant digits.
pub(crate) fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if !value.is_finite() {
        return value.to_string();
    }
    let digits = value.abs().log10().floor();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0 to 12"
    )]
    let decimals = (3.0 - digits).clamp(0.0, 12.0) as usize;
    format!("{value:.decimals$}")
}

/// A share in per cent, with one decimal: `12.5 %`; `<0.1 %` for what would be 0.0 % and is not 0.
pub(crate) fn percent(share: f64) -> String {
    if share > 0.0 && share < 0.0005 {
        return "<0.1 %".to_owned();
    }
    format!("{:.1} %", 100.0 * share)
}

/// `1 unit`, `2 units`
pub(crate) fn unit_count(count: u64) -> String {
    if count == 1 { "1 unit".to_owned() } else { format!("{count} units") }
}

/// Evidence as a number, from its logarithm.
pub(crate) fn evidence(log: f64) -> String {
    let evidence = log.exp();
    if evidence > 1e6 { "over 1000000".to_owned() } else { number(evidence) }
}

pub(crate) fn signed(value: f64) -> String {
    if value < 0.0 { number(value) } else { format!("+{}", number(value)) }
}

/// The reason of a rollback: the guardrail, the values that breached it, and what they are computed
/// over. `since` is when the variant came into traffic, in milliseconds of Unix time; 0: at the start.
pub(super) fn breach(
    status: &GuardrailStatus,
    guardrail: Option<&Guardrail>,
    since: u64,
) -> String {
    let [control, variant] = status.values.unwrap_or_default();
    let metric = guardrail.map(|guardrail| guardrail.metric);
    let over = match (metric, guardrail) {
        (Some(GuardrailMetric::Accuracy | GuardrailMetric::Reward), _) if since == 0 => {
            "all units".to_owned()
        }
        (Some(GuardrailMetric::Accuracy | GuardrailMetric::Reward), _) => {
            format!("all units since {}", clock(since))
        }
        (Some(GuardrailMetric::Drift), _) | (_, None) => "the drift window".to_owned(),
        (_, Some(guardrail)) => duration_text(guardrail.window),
    };
    let text = |value| match metric {
        Some(GuardrailMetric::LatencyP95) => milliseconds(value),
        _ => number(value),
    };
    format!(
        "guardrail {}: {} {}, control {}, over {over}",
        status.guardrail,
        status.variant,
        text(variant),
        text(control),
    )
}

/// `2026-11-30 14:02:11`, in UTC, of milliseconds of Unix time.
pub(crate) fn clock(millis: u64) -> String {
    let micros = i64::try_from(millis.saturating_mul(1000)).unwrap_or(i64::MAX);
    let text = times::format(micros);
    text.get(..19).unwrap_or(&text).replace('T', " ")
}

/// A latency in seconds, as `12.35 ms`.
pub(crate) fn milliseconds(seconds: f64) -> String {
    format!("{} ms", number(1000.0 * seconds))
}

#[cfg(test)]
mod tests {
    use spinfer_experiment::format::GuardrailBound;

    use super::*;

    #[test]
    fn numbers_have_four_digits() {
        for (value, text) in [
            (0.5, "0.5000"),
            (12.3456, "12.35"),
            (0.000_123_45, "0.0001234"),
            (123_456.0, "123456"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!((signed(0.25), signed(-2.0)), ("+0.2500".into(), "-2.000".into()));
        assert_eq!(signed(-0.0), "+0");
        let shares = [0.0, 0.0004, 0.001, 0.25, 1.0].map(percent);
        assert_eq!(shares, ["0.0 %", "<0.1 %", "0.1 %", "25.0 %", "100.0 %"]);
        assert_eq!((unit_count(1), unit_count(0)), ("1 unit".to_owned(), "0 units".to_owned()));
        assert_eq!((&*evidence(0.0), &*evidence(99.0)), ("1.000", "over 1000000"));
    }

    #[test]
    fn rollback_names_the_period_of_its_numbers() {
        let of = |metric, bound, since| {
            let window = std::time::Duration::from_secs(60);
            let guardrail = Guardrail { metric, bound, window, minimum: 50 };
            let status = GuardrailStatus {
                variant: "treatment".into(),
                guardrail: "guardrail".into(),
                state: super::super::guardrails::GuardrailState::Breached,
                values: Some([0.25, 0.5]),
                evidence: 1.0,
            };
            breach(&status, Some(&guardrail), since)
        };
        let decrease = GuardrailBound::MaxDecrease(0.1);
        let increase = GuardrailBound::MaxIncrease(0.1);
        let accuracy = of(GuardrailMetric::Accuracy, decrease, 1_000);
        assert!(accuracy.ends_with("over all units since 1970-01-01 00:00:01"), "{accuracy}");
        assert!(of(GuardrailMetric::Reward, decrease, 0).ends_with("over all units"));
        assert!(of(GuardrailMetric::ErrorRate, increase, 0).ends_with("over 1m"));
        assert!(of(GuardrailMetric::Drift, increase, 0).ends_with("over the drift window"));
        let latency = of(GuardrailMetric::LatencyP95, GuardrailBound::MaxRatio(1.5), 0);
        assert!(latency.contains("treatment 500.0 ms, control 250.0 ms, over 1m"), "{latency}");
    }
}
