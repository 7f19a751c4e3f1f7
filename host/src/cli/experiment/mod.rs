//! `spinfer experiment`: lists and changes the experiments of a running host.

mod allocations;
mod history;

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
use super::telemetry::output_has_colours;
use crate::admin::EXPERIMENTS;
use crate::experiment::status::{ExperimentDetail, ExperimentStatus};
use crate::experiment::update::AllocationUpdate;
use allocations::{list, promoted, show};
use history::{Palette, write_history, write_journal};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_is_a_number_or_in_per_cent() {
        assert_eq!(share("treatment=0.2"), Ok(("treatment".into(), 0.2)));
        assert_eq!(share("treatment=20%"), Ok(("treatment".into(), 0.2)));
        assert_eq!(share("treatment=1"), Ok(("treatment".into(), 1.0)));
        for text in ["t", "t=", "t=x", "t=20", "t=-1", "t=nan", "t=101%"] {
            assert!(share(text).unwrap_err().contains("treatment=0.2"), "{text}");
        }
    }
}
