//! What `spinfer experiment show` prints below the variants: the verdict with its numbers, guardrails,
//! intervals over time on one scale, and the journal.

use std::io::Write;

use anyhow::Result;
use spinfer_experiment::progress::Event;
use spinfer_statistics::confidence_sequence::Interval;

use super::table::write_table;
use crate::experiment::assessment::{Assessment, VariantAssessment, number};
use crate::experiment::guardrails::{GuardrailState, GuardrailStatus};
use crate::experiment::status::ExperimentDetail;
use crate::experiment::supervisor::PastLook;
use crate::prediction_log::times;

/// Number of the last entries of the journal that `show` prints.
const LAST_ENTRIES: usize = 5;
/// Number of the last looks that are drawn.
const LAST_LOOKS: usize = 24;
/// Width of the scale, in characters.
const WIDTH: usize = 41;

/// Colours of a terminal, or none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Palette {
    pub(super) colours: bool,
}

impl Palette {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }
}

/// Writes everything about an experiment except its allocations.
pub(super) fn write_history(
    detail: &ExperimentDetail,
    palette: Palette,
    out: &mut impl Write,
) -> Result<()> {
    if let Some(assessment) = &detail.status.assessment {
        write_assessment(assessment, palette, out)?;
    }
    for (variant, rollback) in &detail.status.rolled_back {
        writeln!(out, "  {variant} is rolled back since {}", clock(rollback.time))?;
    }
    write_looks(detail, palette, out)?;
    if !detail.journal.is_empty() {
        writeln!(out, "\njournal")?;
        let first = detail.journal.len().saturating_sub(LAST_ENTRIES);
        write_journal(&detail.journal[first..], out)?;
    }
    Ok(())
}

/// Writes entries of a journal, one on a line.
pub(super) fn write_journal(entries: &[Event], out: &mut impl Write) -> Result<()> {
    let lines: Vec<[String; 4]> = entries
        .iter()
        .map(|Event { time, actor, kind, detail, .. }| {
            [format!("  {}", clock(*time)), actor.clone(), kind.name().into(), detail.clone()]
        })
        .collect();
    write_table(&lines, out)
}

/// `2026-11-30 14:02:11`, in UTC.
fn clock(millis: u64) -> String {
    let micros = i64::try_from(millis.saturating_mul(1000)).unwrap_or(i64::MAX);
    let text = times::format(micros);
    text.get(..19).unwrap_or(&text).replace('T', " ")
}

fn write_assessment(found: &Assessment, palette: Palette, out: &mut impl Write) -> Result<()> {
    let Assessment { verdict, alpha, minimum_sample, ratio, variants, guardrails, .. } = found;
    writeln!(out, "\nverdict: {verdict}")?;
    if found.metric.is_some() {
        // 0.07 times 100 is 7.000000000000001.
        let alpha = (alpha * 1e8).round() / 1e6;
        writeln!(
            out,
            "  at most {alpha} % false winners at any look, from {minimum_sample} units of each variant"
        )?;
    }
    if let Some(ratio) = ratio {
        let text = if ratio.is_mismatch() { "not as configured" } else { "as configured" };
        writeln!(
            out,
            "  split {text}: {} units, evidence e^{:.1} (broken from e^6.9), chi-squared p = {:.2}",
            ratio.units, ratio.log_evidence, ratio.chi_squared_p
        )?;
    }
    if let Some([step, steps]) = found.step {
        writeln!(out, "  step {step} of {steps}")?;
    }
    writeln!(out)?;
    let head = ["  variant", "units", "requests", "errors", "p50", "p95", "p99", "feedback"];
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(variants.iter().map(variant_line));
    write_table(&lines, out)?;
    if !guardrails.is_empty() {
        writeln!(out, "\nguardrails")?;
        guardrails.iter().try_for_each(|status| write_guardrail(status, palette, out))?;
    }
    Ok(())
}

fn variant_line(variant: &VariantAssessment) -> [String; 8] {
    let VariantAssessment { name, units, requests, errors, latency, means, .. } = variant;
    #[expect(clippy::cast_precision_loss, reason = "a share for display")]
    let share = if *requests == 0 { 0.0 } else { 100.0 * *errors as f64 / *requests as f64 };
    let quantile = |index: usize| match latency {
        Some(quantiles) => format!("{} ms", number(1000.0 * quantiles[index])),
        None => String::new(),
    };
    let means = means
        .iter()
        .map(|(metric, mean)| format!("{metric} {} ({} units)", number(mean.mean), mean.units));
    [
        format!("  {name}"),
        units.to_string(),
        requests.to_string(),
        format!("{share:.2} %"),
        quantile(0),
        quantile(1),
        quantile(2),
        means.collect::<Vec<_>>().join(", "),
    ]
}

fn write_guardrail(status: &GuardrailStatus, palette: Palette, out: &mut impl Write) -> Result<()> {
    let GuardrailStatus { variant, guardrail, state, values, evidence } = status;
    let name = match state {
        GuardrailState::Holds => palette.good(state.name()),
        GuardrailState::Breached => palette.bad(state.name()),
        GuardrailState::Waiting | GuardrailState::Exceeded => state.name().to_owned(),
    };
    write!(out, "  {variant}  {guardrail}: {name}")?;
    if let Some([control, treatment]) = values {
        let (treatment, control) = (number(*treatment), number(*control));
        let evidence = 100.0 * evidence;
        write!(out, ", {treatment} (control {control}), evidence {evidence:.0} % of a breach")?;
    }
    writeln!(out)?;
    Ok(())
}

/// Draws the intervals of each treatment, one look on a line.
fn write_looks(detail: &ExperimentDetail, palette: Palette, out: &mut impl Write) -> Result<()> {
    let first = detail.looks.len().saturating_sub(LAST_LOOKS);
    let looks = &detail.looks[first..];
    let Some(last) = looks.last() else { return Ok(()) };
    let metric = detail.status.assessment.as_ref().and_then(|found| found.metric.as_deref());
    for (variant, interval) in &last.differences {
        let metric = metric.unwrap_or("metric");
        writeln!(out, "\n{metric}: {variant} less control")?;
        let scale = Scale::of(interval);
        writeln!(out, "  {:19}  {:>10}  {}", "", "", scale.labels())?;
        for PastLook { time, verdict, differences } in looks {
            let Some(interval) = differences.get(variant) else { continue };
            let drawn = scale.draw(interval);
            let drawn = if interval.lower > 0.0 || interval.upper < 0.0 {
                palette.good(&drawn)
            } else {
                drawn
            };
            let estimate = format!("{:+.4}", interval.estimate);
            let verdict = verdict.replace('_', " ");
            writeln!(out, "  {}  {estimate:>10}  {drawn}  {verdict}", clock(*time))?;
        }
    }
    Ok(())
}

/// A scale with 0 on it, three times as wide as the last interval. Wider intervals are cut off.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn of(interval: &Interval) -> Self {
        let width = (interval.upper - interval.lower).max(f64::MIN_POSITIVE);
        Self { low: (interval.lower - width).min(0.0), high: (interval.upper + width).max(0.0) }
    }

    /// The cell of a value; beyond the scale, the first or the last.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "clamped to the width"
    )]
    fn cell(&self, value: f64) -> usize {
        let share = (value - self.low) / (self.high - self.low);
        (share.clamp(0.0, 1.0) * (WIDTH - 1) as f64).round() as usize
    }

    /// The ends of the scale, and 0.
    fn labels(&self) -> String {
        let (low, high) = (format!("{:+.3}", self.low), format!("{:+.3}", self.high));
        let mut cells = vec![' '; WIDTH];
        let mut put = |at: usize, text: &str| {
            for (cell, letter) in cells.iter_mut().skip(at).zip(text.chars()) {
                *cell = letter;
            }
        };
        put(0, &low);
        put(WIDTH.saturating_sub(high.len()), &high);
        let zero = self.cell(0.0);
        if (low.len() + 1..WIDTH - high.len() - 1).contains(&zero) {
            put(zero, "0");
        }
        cells.into_iter().collect()
    }

    fn draw(&self, interval: &Interval) -> String {
        let mut cells = vec![' '; WIDTH];
        cells[self.cell(0.0)] = '│';
        let (lower, upper) = (self.cell(interval.lower), self.cell(interval.upper));
        for cell in &mut cells[lower..=upper] {
            *cell = if *cell == '│' { '┼' } else { '─' };
        }
        cells[lower] = if interval.lower < self.low { '◀' } else { '├' };
        cells[upper] = if interval.upper > self.high { '▶' } else { '┤' };
        cells[self.cell(interval.estimate)] = '●';
        cells.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(estimate: f64, half: f64) -> Interval {
        Interval { estimate, lower: estimate - half, upper: estimate + half }
    }

    #[test]
    fn interval_is_drawn_on_a_scale_with_zero() {
        let scale = Scale::of(&interval(0.03, 0.01));
        assert!(scale.low.abs() < 1e-12 && scale.cell(0.0) == 0, "{}", scale.low);
        let line = scale.draw(&interval(0.03, 0.01));
        assert_eq!(line.chars().count(), WIDTH);
        assert!(line.find('├') < line.find('●') && line.find('●') < line.find('┤'), "{line}");
        assert!(line.starts_with('│'), "{line}");
        let wide = scale.draw(&interval(0.0, 1.0));
        assert!(wide.ends_with('▶') && wide.contains('─'), "{wide}");
        assert!(scale.labels().ends_with("+0.060"), "{}", scale.labels());
    }

    #[test]
    fn interval_around_zero_crosses_its_mark() {
        let scale = Scale::of(&interval(0.005, 0.01));
        let line = scale.draw(&interval(0.005, 0.01));
        assert!(line.contains('┼'), "{line}");
        let labels = scale.labels();
        assert!(labels.trim_start().contains(" 0"), "{labels}");
        assert_eq!(labels.chars().count(), WIDTH);
    }

    #[test]
    fn colours_are_optional() {
        assert_eq!(Palette { colours: false }.good("holds"), "holds");
        assert_eq!(Palette { colours: true }.bad("breached"), "\x1b[31mbreached\x1b[0m");
    }

    #[test]
    fn time_is_shown_to_the_second() {
        assert_eq!(clock(1_000), "1970-01-01 00:00:01");
    }
}
