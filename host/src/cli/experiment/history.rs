//! What `spinfer experiment show` prints below the variants: the verdict with its numbers, guardrails,
//! intervals over time on one scale, and the journal.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use spinfer_experiment::format::duration_text;
use spinfer_experiment::progress::Event;
use spinfer_statistics::confidence_sequence::Interval;

use crate::cli::table::write_table;
use crate::experiment::assessment::{Assessment, VariantAssessment};
use crate::experiment::guardrails::{GuardrailState, GuardrailStatus};
use crate::experiment::status::ExperimentDetail;
use crate::experiment::supervisor::PastLook;
use crate::experiment::text::{clock, evidence, milliseconds, number, percent, unit_count};

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
        if first > 0 {
            let entries = if first == 1 { "entry" } else { "entries" };
            let name = &detail.status.name;
            writeln!(out, "  {first} earlier {entries}: spinfer experiment journal {name}")?;
        }
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

fn write_assessment(found: &Assessment, palette: Palette, out: &mut impl Write) -> Result<()> {
    let Assessment { verdict, alpha, minimum_sample, ratio, variants, guardrails, .. } = found;
    writeln!(out, "\nverdict: {verdict}")?;
    if found.metric.is_some() {
        // 0.07 times 100 is 7.000000000000001.
        let alpha = (alpha * 1e8).round() / 1e6;
        let sample = unit_count(*minimum_sample);
        writeln!(
            out,
            "  at most {alpha} % false winners at any look, from {sample} of each variant"
        )?;
        if let Some(covariate) = &found.covariate {
            writeln!(out, "  adjusted for {covariate} (CUPED)")?;
        }
    }
    if let Some(ratio) = ratio {
        let text = if ratio.is_mismatch() { "not as configured" } else { "as configured" };
        writeln!(
            out,
            "  split {text}: {}, evidence {} (broken from 1000), chi-squared p = {:.2}",
            unit_count(ratio.units),
            evidence(ratio.log_evidence),
            ratio.chi_squared_p
        )?;
    }
    if let Some([step, steps]) = found.step {
        writeln!(out, "  step {step} of {steps}, {}", hold(found.step_left))?;
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

/// How long a step of a canary is still held, in milliseconds.
fn hold(left: Option<u64>) -> String {
    match left {
        None => "complete".to_owned(),
        Some(0) => "its hold time is over: waits until every guardrail holds".to_owned(),
        Some(left) => {
            let left = Duration::from_secs(left.div_ceil(1000));
            format!("{} of its hold time left", duration_text(left))
        }
    }
}

fn variant_line(variant: &VariantAssessment) -> [String; 8] {
    let VariantAssessment { name, units, requests, errors, latency, means, .. } = variant;
    #[expect(clippy::cast_precision_loss, reason = "a share for display")]
    let share = (*requests > 0).then(|| *errors as f64 / *requests as f64);
    let quantile = |index: usize| match latency {
        Some(quantiles) => milliseconds(quantiles[index]),
        None => "-".to_owned(),
    };
    let means = means.iter().map(|(metric, mean)| {
        format!("{metric} {} ({})", number(mean.mean), unit_count(mean.units))
    });
    let means = means.collect::<Vec<_>>().join(", ");
    [
        format!("  {name}"),
        units.to_string(),
        requests.to_string(),
        share.map_or_else(|| "-".to_owned(), percent),
        quantile(0),
        quantile(1),
        quantile(2),
        if means.is_empty() { "-".to_owned() } else { means },
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
        let is_latency = guardrail.starts_with("latency");
        let text = |value: f64| if is_latency { milliseconds(value) } else { number(value) };
        let (treatment, control) = (text(*treatment), text(*control));
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
            let estimate = without_negative_zero(format!("{:+.4}", interval.estimate));
            let verdict = verdict.replace('_', " ");
            writeln!(out, "  {}  {estimate:>10}  {drawn}  {verdict}", clock(*time))?;
        }
    }
    Ok(())
}

/// `+0.000` for `-0.000`.
fn without_negative_zero(text: String) -> String {
    let is_zero = text.bytes().all(|byte| matches!(byte, b'-' | b'+' | b'0' | b'.'));
    if is_zero { text.replace('-', "+") } else { text }
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
        let [low, high] = [self.low, self.high];
        let [low, high] = [low, high].map(|end| without_negative_zero(format!("{end:+.3}")));
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
    fn zero_has_no_minus() {
        assert_eq!(without_negative_zero("-0.000".into()), "+0.000");
        assert_eq!(without_negative_zero("-0.001".into()), "-0.001");
    }

    #[test]
    fn hold_time_that_is_left_is_shown() {
        assert_eq!(hold(Some(59_001)), "1m of its hold time left");
        assert_eq!(hold(None), "complete");
        assert!(hold(Some(0)).contains("waits until every guardrail holds"));
    }

    #[test]
    fn time_is_shown_to_the_second() {
        assert_eq!(clock(1_000), "1970-01-01 00:00:01");
    }
}
