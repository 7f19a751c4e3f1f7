//! Experiments as `spinfer experiment list` and `show` print them: variants, their shares, and the
//! agreement of shadows.

use std::io::Write;

use anyhow::Result;

use crate::cli::table::write_table;
use crate::experiment::status::{AgreementStatus, ExperimentStatus, VariantStatus};
use crate::experiment::text::percent;

pub(super) fn list(all: &[ExperimentStatus], out: &mut impl Write) -> Result<()> {
    let head = ["experiment", "kind", "state", "model", "unit", "variant", "share", "", "assigned"];
    let mut lines = vec![head.map(str::to_owned)];
    for experiment in all {
        let ExperimentStatus { name, kind, model, unit, variants, .. } = experiment;
        for (index, variant) in variants.iter().enumerate() {
            let first = |text: &String| if index == 0 { text.clone() } else { String::new() };
            let (bar, share) = shown(experiment, variant);
            let state = first(&state(experiment).to_owned());
            let [name, kind, model, unit] = [name, kind, model, unit].map(first);
            let assigned = variant.requests.to_string();
            let arm = variant.name.clone();
            lines.push([name, kind, state, model, unit, arm, bar, share, assigned]);
        }
    }
    write_table(&lines, out)?;
    for problem in all.iter().filter_map(problem) {
        writeln!(out, "{problem}")?;
    }
    Ok(())
}

/// The state of an experiment, as `list` shows it.
fn state(experiment: &ExperimentStatus) -> &'static str {
    let treatments = experiment.variants.iter().filter(|variant| !variant.shadow);
    let treatments = treatments.filter(|variant| variant.name != spinfer_experiment::CONTROL);
    let is_out = |variant: &VariantStatus| experiment.rolled_back.contains_key(&variant.name);
    match experiment {
        ExperimentStatus { stopped: true, .. } => "stopped",
        ExperimentStatus { started: false, .. } => "not started",
        ExperimentStatus { rolled_back, .. }
            if !rolled_back.is_empty() && treatments.clone().all(is_out) =>
        {
            "rolled back"
        }
        _ => "running",
    }
}

pub(super) fn show(experiment: &ExperimentStatus, out: &mut impl Write) -> Result<()> {
    let ExperimentStatus { name, model, router, unit, force, stopped, winner, variants, .. } =
        experiment;
    let state = match (stopped, winner) {
        (false, _) if !experiment.started => {
            ", not started: control serves all requests".to_owned()
        }
        (false, _) => String::new(),
        (true, None) => ", stopped: control serves all requests".to_owned(),
        (true, Some(winner)) => format!(", stopped: {winner} serves all requests"),
    };
    let kind = &experiment.kind;
    let kind = if kind == "experiment" { String::new() } else { format!(" ({kind})") };
    writeln!(out, "experiment {name}{kind}{state}")?;
    writeln!(out, "  model {model}, assigned by component {router}, by {unit}")?;
    if let Some(force) = force {
        writeln!(out, "  testers choose a variant by the header {force}")?;
    }
    let head = ["  variant", "component", "model", "share", "", "configured", "assigned"];
    let mut lines = vec![head.map(str::to_owned)];
    for variant in variants {
        let (bar, share) = shown(experiment, variant);
        lines.push([
            format!("  {}", variant.name),
            variant.component.clone(),
            variant.model.clone().unwrap_or_else(|| model.clone()),
            bar,
            share,
            if variant.shadow { "-".to_owned() } else { aligned_percent(variant.configured) },
            variant.requests.to_string(),
        ]);
    }
    write_table(&lines, out)?;
    writeln!(out, "  assigned: requests on this host since it started")?;
    for variant in variants {
        agreement(variant, out)?;
        if variant.failed_over > 0 {
            let (name, count) = (&variant.name, variant.failed_over);
            writeln!(out, "  {name} was unavailable: control served {count} of its requests")?;
        }
    }
    if !experiment.excluded.is_empty() {
        let counts = experiment.excluded.iter().map(|(reason, count)| format!("{reason} {count}"));
        let counts = counts.collect::<Vec<_>>().join(", ");
        writeln!(out, "  requests not in the experiment: {counts}")?;
    }
    if let Some(problem) = problem(experiment) {
        writeln!(out, "{problem}")?;
    }
    Ok(())
}

/// Prints what to write into the file, so that the winner stays when the change is removed.
pub(super) fn promoted(
    experiment: &ExperimentStatus,
    winner: &str,
    out: &mut impl Write,
) -> Result<()> {
    let Some(variant) = experiment.variants.iter().find(|variant| variant.name == winner) else {
        return Ok(());
    };
    let ExperimentStatus { name, model, router, .. } = experiment;
    writeln!(
        out,
        "To keep `{winner}`, let it be the only variant of [experiments.{name}] in the \
         experiments.toml of {router}:"
    )?;
    writeln!(out, "  name = \"{}\"", spinfer_experiment::CONTROL)?;
    writeln!(out, "  component = \"{}\"", variant.component)?;
    writeln!(out, "  model = \"{}\"", variant.model.as_ref().unwrap_or(model))?;
    writeln!(out, "  allocation = 1")?;
    writeln!(out, "Then restart the host: it reads the file when it starts.")?;
    Ok(())
}

/// Prints how far a shadow agrees with the variants that serve the clients.
fn agreement(variant: &VariantStatus, out: &mut impl Write) -> Result<()> {
    let Some(AgreementStatus { counts, rate, mean_difference }) = &variant.agreement else {
        return Ok(());
    };
    let name = &variant.name;
    if counts.compared == 0 {
        writeln!(out, "  {name}: no predictions compared yet")?;
        return Ok(());
    }
    write!(out, "  {name}: {} requests compared", counts.compared)?;
    if let Some(rate) = rate {
        write!(out, ", labels of {} rows agree to {}", counts.labelled, percent(*rate))?;
    }
    if let Some(mean) = mean_difference {
        let max = counts.difference_max;
        write!(out, ", numbers differ by {mean:.6} on average and by {max:.6} at most")?;
    }
    if counts.incomparable > 0 {
        write!(out, ", {} requests not comparable", counts.incomparable)?;
    }
    writeln!(out)?;
    Ok(())
}

fn problem(experiment: &ExperimentStatus) -> Option<String> {
    let problem = experiment.problem.as_ref()?;
    Some(format!("experiment {}: {problem}", experiment.name))
}

/// Width of the bar of a share of 1, in characters.
const BAR: u8 = 20;

/// The current share of a variant, as a bar and in per cent.
fn shown(experiment: &ExperimentStatus, variant: &VariantStatus) -> (String, String) {
    if variant.shadow {
        return ("shadow".to_owned(), "-".to_owned());
    }
    let winner = experiment.winner.as_deref().unwrap_or(spinfer_experiment::CONTROL);
    let share = match experiment.stopped || !experiment.started {
        true if variant.name == winner => 1.0,
        true => 0.0,
        false => variant.allocation,
    };
    (bar(share), aligned_percent(share))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share is from 0 to 1"
)]
fn bar(share: f64) -> String {
    let full = (share.clamp(0.0, 1.0) * f64::from(BAR)).round() as u8;
    // A share above 0 is visible.
    let full = usize::from(full.max(u8::from(share > 0.0)));
    format!("{}{}", "█".repeat(full), "░".repeat(usize::from(BAR) - full))
}

/// A share in per cent, for a column.
fn aligned_percent(share: f64) -> String {
    format!("{:>7}", percent(share))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::experiment::agreement::AgreementCounts;

    #[test]
    fn bar_is_proportional_to_the_share() {
        let full = |share| bar(share).matches('█').count();
        assert_eq!([0.0, 0.001, 0.5, 1.0].map(full), [0, 1, 10, 20]);
        assert_eq!(bar(0.3).chars().count(), usize::from(BAR));
    }

    #[test]
    fn experiments_are_printed_as_a_table() {
        let variant = |name: &str, allocation, shadow| VariantStatus {
            name: name.into(),
            component: format!("iris-{name}"),
            model: Some("iris-classifier".into()),
            shadow,
            allocation,
            configured: 0.5,
            requests: 7,
            failed_over: 0,
            agreement: None,
        };
        let mut experiment = ExperimentStatus {
            name: "iris".into(),
            model: "iris".into(),
            router: "ab-router".into(),
            unit: "header x-user-id".into(),
            force: Some("x-variant".into()),
            kind: "experiment".into(),
            started: true,
            stopped: false,
            winner: None,
            excluded: BTreeMap::new(),
            variants: vec![
                variant("control", 0.75, false),
                variant("treatment", 0.25, false),
                variant("candidate", 0.0, true),
            ],
            rolled_back: BTreeMap::new(),
            assessment: None,
            problem: None,
        };
        let mut out = Vec::new();
        list(std::slice::from_ref(&experiment), &mut out).unwrap();
        let expected = "\
experiment  kind        state    model  unit              variant    share                          assigned
iris        experiment  running  iris   header x-user-id  control    ███████████████░░░░░   75.0 %  7
                                                          treatment  █████░░░░░░░░░░░░░░░   25.0 %  7
                                                          candidate  shadow                -        7
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        let rollback = spinfer_experiment::progress::Rollback { reason: "errors".into(), time: 1 };
        let rolled_back = BTreeMap::from([("treatment".to_owned(), rollback)]);
        assert_eq!(state(&ExperimentStatus { rolled_back, ..experiment.clone() }), "rolled back");
        let waiting = ExperimentStatus { started: false, ..experiment.clone() };
        assert_eq!(state(&waiting), "not started");
        experiment.stopped = true;
        assert_eq!(state(&experiment), "stopped");
        experiment.winner = Some("treatment".into());
        let mut out = Vec::new();
        show(&experiment, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with("experiment iris, stopped: treatment serves all requests\n"),
            "{text}"
        );
        assert!(text.contains("100.0 %"), "{text}");
        let mut out = Vec::new();
        promoted(&experiment, "treatment", &mut out).unwrap();
        let expected = "\
To keep `treatment`, let it be the only variant of [experiments.iris] in the experiments.toml of ab-router:
  name = \"control\"
  component = \"iris-treatment\"
  model = \"iris-classifier\"
  allocation = 1
Then restart the host: it reads the file when it starts.
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn agreement_of_a_shadow_is_printed() {
        let counts = AgreementCounts {
            compared: 20,
            incomparable: 1,
            labelled: 40,
            agreeing: 30,
            numbers: 80,
            missing: 0,
            difference_sum: 4.0,
            difference_max: 0.75,
        };
        let shadow = |counts: AgreementCounts| VariantStatus {
            name: "candidate".into(),
            component: "iris-3".into(),
            model: None,
            shadow: true,
            allocation: 0.0,
            configured: 0.0,
            requests: 21,
            failed_over: 0,
            agreement: Some(counts.into()),
        };
        let printed = |counts| {
            let mut out = Vec::new();
            agreement(&shadow(counts), &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            printed(counts),
            "  candidate: 20 requests compared, labels of 40 rows agree to 75.0 %, numbers differ by \
             0.050000 on average and by 0.750000 at most, 1 requests not comparable\n"
        );
        let none = AgreementCounts::default();
        assert_eq!(printed(none), "  candidate: no predictions compared yet\n");
    }
}
