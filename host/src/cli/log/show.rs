//! `spinfer log show`.

use std::io::Write;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Location;
use crate::prediction_log::reader::Filter;
use crate::prediction_log::times::format;

pub(super) fn run(id: Uuid, place: &Location, out: &mut impl Write) -> Result<()> {
    let mut reader = place.open()?;
    let path = reader.path().to_owned();
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
        let told = of_row.map(|(_, kind, truth, time)| truth_at(kind, truth, *time));
        let told: Vec<_> = told.collect();
        if !told.is_empty() {
            record["feedback"] = told.into();
        }
        serde_json::to_writer_pretty(&mut *out, record)?;
        writeln!(out)?;
    }
    if !records.is_empty() {
        return Ok(());
    }
    if feedback.is_empty() {
        let path = path.display();
        bail!("{path}: there is no prediction {id}, and no feedback for one");
    }
    for (row, kind, truth, time) in &feedback {
        let mut told = truth_at(kind, truth, *time);
        told["row"] = json!(row);
        serde_json::to_writer_pretty(
            &mut *out,
            &json!({ "id": id.to_string(), "feedback": told }),
        )?;
        writeln!(out)?;
    }
    bail!("there is feedback for {id}, but no prediction: it is older than the log, or elsewhere")
}

fn truth_at(kind: &str, truth: &Value, time: i64) -> Value {
    json!({ kind: truth, "time": format(time) })
}
