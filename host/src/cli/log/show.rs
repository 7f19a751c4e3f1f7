//! `spinfer log show`: prints the records and the feedback of one prediction.

use std::io::Write;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Foreign, LogLocation};
use crate::prediction_log::reader::Filter;
use crate::prediction_log::times::format;

pub(super) fn run(id: Uuid, location: &LogLocation, out: &mut impl Write) -> Result<()> {
    let mut reader = location.open(Foreign::Fail)?;
    let path = reader.shown();
    let snapshot = reader.snapshot()?;
    let mut records = Vec::new();
    snapshot.each(&Filter { id: Some(id), ..Filter::default() }, |record| {
        let mut text = Vec::new();
        record.write_json(&mut text);
        records.push((record.row, serde_json::from_slice::<Value>(&text)?));
        anyhow::Ok(())
    })?;
    let feedback = snapshot.feedback(id)?;
    for (row, record) in &mut records {
        let of_row = feedback.iter().filter(|(other, ..)| other == row);
        let entries = of_row.map(|(_, kind, truth, time)| feedback_entry(kind, truth, *time));
        let entries: Vec<_> = entries.collect();
        if !entries.is_empty() {
            record["feedback"] = entries.into();
        }
        serde_json::to_writer_pretty(&mut *out, record)?;
        writeln!(out)?;
    }
    if !records.is_empty() {
        return Ok(());
    }
    if feedback.is_empty() {
        bail!("{path}: there is no prediction {id}, and no feedback for it");
    }
    for (row, kind, truth, time) in &feedback {
        let mut entry = feedback_entry(kind, truth, *time);
        entry["row"] = json!(row);
        serde_json::to_writer_pretty(
            &mut *out,
            &json!({ "id": id.to_string(), "feedback": entry }),
        )?;
        writeln!(out)?;
    }
    bail!(
        "there is feedback for {id}, but no prediction: it was deleted, or logged on another node"
    )
}

fn feedback_entry(kind: &str, truth: &Value, time: i64) -> Value {
    json!({ kind: truth, "time": format(time) })
}
