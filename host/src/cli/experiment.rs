//! `spinfer experiment`: lists and changes the experiments of a running host.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use http::uri::Authority;
use serde::de::DeserializeOwned;
use spinfer_experiment::progress::Event;

use super::admin_client::{send, send_json};
use super::cache::{At, UNEXPECTED};
use super::experiment_history::{Palette, write_history, write_journal};
use super::table::write_table;
use super::telemetry::output_has_colours;
use crate::admin::EXPERIMENTS;
use crate::experiment::status::{
    AgreementStatus, ExperimentDetail, ExperimentStatus, VariantStatus,
};
use crate::experiment::text::percent;
use crate::experiment::update::AllocationUpdate;

#[derive(Debug, Args)]
pub struct ExperimentOptions {
    #[command(subcommand)]
    command: ExperimentCommand,
}

#[derive(Debug, Subcommand)]
enum ExperimentCommand {
    /// List experiments, with the share of each variant
    List {
        #[command(flatten)]
        at: At,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the journal of an experiment: each change with its time, author and numbers
    Journal {
        /// Name of the experiment, as in `list`
        name: String,

        #[command(flatten)]
        at: At,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one experiment: variants, verdict, guardrails, and intervals over time
    Show {
        /// Name of the experiment, as in `list`
        name: String,

        #[command(flatten)]
        at: At,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Start an experiment with `start = "manual"`, or one that is stopped
    Start {
        /// Name of the experiment, as in `list`
        name: String,

        #[command(flatten)]
        at: At,
    },
    /// Change the shares of variants, on all nodes that share the router's key-value store. Variants
    /// that are not listed keep their share; control gets the rest, unless it is listed
    Ramp {
        /// Name of the experiment, as in `list`
        name: String,

        /// Share from 0 to 1, or in per cent: treatment=0.2, treatment=20%
        #[arg(required = true, value_name = "VARIANT=SHARE", value_parser = share)]
        shares: Vec<(String, f64)>,

        /// Resume a stopped experiment
        #[arg(long)]
        resume: bool,

        #[command(flatten)]
        at: At,
    },
    /// Stop an experiment: control, or the winner, serves all requests; resume it with `start`
    Stop {
        /// Name of the experiment, as in `list`
        name: String,

        /// Variant that serves all requests from now on [default: control]
        #[arg(long, value_name = "VARIANT")]
        winner: Option<String>,

        #[command(flatten)]
        at: At,
    },
    /// Stop an experiment with a winner, and print what to write into its file to keep it
    Promote {
        /// Name of the experiment, as in `list`
        name: String,

        /// Variant that serves all requests from now on
        variant: String,

        #[command(flatten)]
        at: At,
    },
}

/// Parses `treatment=0.2` or `treatment=20%`.
fn share(text: &str) -> Result<(String, f64), String> {
    let form = "write <variant>=<share>: treatment=0.2, or treatment=20%";
    let (name, share) = text.split_once('=').ok_or(form)?;
    let (number, whole) = match share.strip_suffix('%') {
        Some(number) => (number.trim_end(), 100.0),
        None => (share, 1.0),
    };
    let number: f64 = number.parse().map_err(|_| format!("\"{share}\" is not a share; {form}"))?;
    if (0.0..=whole).contains(&number) {
        Ok((name.to_owned(), number / whole))
    } else {
        Err(format!("\"{share}\" is not a share from 0 to 1; {form}"))
    }
}

/// Runs the command against the host, and prints the result to `out`.
///
/// # Errors
/// If the admin plane cannot be reached or refuses the change.
pub fn run(experiment: &ExperimentOptions, out: &mut impl Write) -> Result<()> {
    match &experiment.command {
        ExperimentCommand::List { at, json } => {
            let all = all(&at.admin)?;
            if *json {
                return write_json(&all, out);
            }
            if all.is_empty() {
                writeln!(out, "No experiments: no component mounts an /experiments.toml.")?;
                return Ok(());
            }
            list(&all, out)
        }
        ExperimentCommand::Show { name, at, json } => {
            let detail: ExperimentDetail = get(&at.admin, name, "")?;
            if *json {
                return write_json(&detail, out);
            }
            show(&detail.status, out)?;
            write_history(&detail, Palette { colours: output_has_colours() }, out)
        }
        ExperimentCommand::Journal { name, at, json } => {
            let entries: Vec<Event> = get(&at.admin, name, "/journal")?;
            if *json {
                return write_json(&entries, out);
            }
            if entries.is_empty() {
                writeln!(out, "No entries: the experiment was never changed.")?;
            }
            write_journal(&entries, out)
        }
        ExperimentCommand::Ramp { name, shares, resume, at } => {
            let mut allocations = BTreeMap::new();
            for (variant, share) in shares {
                if allocations.insert(variant.clone(), *share).is_some() {
                    bail!("`{variant}` has two shares; remove one");
                }
            }
            let stopped = resume.then_some(false);
            let update = AllocationUpdate { allocations, stopped, ..AllocationUpdate::default() };
            show(&change(&at.admin, name, &update)?, out)
        }
        ExperimentCommand::Start { name, at } => {
            let update = AllocationUpdate { started: Some(true), ..AllocationUpdate::default() };
            show(&change(&at.admin, name, &update)?, out)
        }
        ExperimentCommand::Promote { name, variant, at } => {
            let update = AllocationUpdate {
                stopped: Some(true),
                winner: Some(variant.clone()),
                ..AllocationUpdate::default()
            };
            let experiment = change(&at.admin, name, &update)?;
            show(&experiment, out)?;
            promoted(&experiment, variant, out)
        }
        ExperimentCommand::Stop { name, winner, at } => {
            let update = AllocationUpdate {
                stopped: Some(true),
                winner: winner.clone(),
                ..AllocationUpdate::default()
            };
            show(&change(&at.admin, name, &update)?, out)
        }
    }
}

fn all(admin: &Authority) -> Result<Vec<ExperimentStatus>> {
    let response = send(admin, &Method::GET, EXPERIMENTS)?;
    serde_json::from_slice(&response).context(UNEXPECTED)
}

/// What the admin plane responds with about the experiment `name`, or a part of it.
fn get<T: DeserializeOwned>(admin: &Authority, name: &str, part: &str) -> Result<T> {
    let name: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
    let response = send(admin, &Method::GET, &format!("{EXPERIMENTS}/{name}{part}"))?;
    serde_json::from_slice(&response).context(UNEXPECTED)
}

fn change(admin: &Authority, name: &str, update: &AllocationUpdate) -> Result<ExperimentStatus> {
    let name: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
    let body = Bytes::from(serde_json::to_vec(update)?);
    let response = send_json(admin, &Method::PUT, &format!("{EXPERIMENTS}/{name}"), body)?;
    serde_json::from_slice(&response).context(UNEXPECTED)
}

fn write_json(value: &impl serde::Serialize, out: &mut impl Write) -> Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)?;
    Ok(())
}

fn list(all: &[ExperimentStatus], out: &mut impl Write) -> Result<()> {
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

fn show(experiment: &ExperimentStatus, out: &mut impl Write) -> Result<()> {
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
fn promoted(experiment: &ExperimentStatus, winner: &str, out: &mut impl Write) -> Result<()> {
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
    use super::*;
    use crate::experiment::agreement::AgreementCounts;

    #[test]
    fn share_is_a_number_or_in_per_cent() {
        assert_eq!(share("treatment=0.2"), Ok(("treatment".into(), 0.2)));
        assert_eq!(share("treatment=20%"), Ok(("treatment".into(), 0.2)));
        assert_eq!(share("treatment=1"), Ok(("treatment".into(), 1.0)));
        for text in ["t", "t=", "t=x", "t=20", "t=-1", "t=nan", "t=101%"] {
            assert!(share(text).unwrap_err().contains("treatment=0.2"), "{text}");
        }
    }

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
