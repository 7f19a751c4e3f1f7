//! `spinfer log show`: prints the records and the feedback of one prediction.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Result, bail};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Foreign, LogLocation};
use crate::prediction_log::reader::Filter;
use crate::prediction_log::times::format;

pub(super) fn run(id: Uuid, location: &LogLocation, out: &mut impl Write) -> Result<()> {
    let mut reader = location.open(Foreign::Fail)?;
    let path = reader.shown();
    let snapshot = reader.snapshot()?;
    let mut feedback = BTreeMap::<i64, RowFeedback>::new();
    for (row, kind, truth, time) in snapshot.feedback(id)? {
        let of_row = feedback.entry(row).or_default();
        of_row.times.insert(kind.clone(), format(time).into());
        of_row.truths.insert(kind, truth);
    }
    let mut records = Vec::new();
    snapshot.each(&Filter { id: Some(id), ..Filter::default() }, |record| {
        let mut text = Vec::new();
        record.write_json(&mut text);
        records.push((record.row, String::from_utf8(text)?));
        anyhow::Ok(())
    })?;
    for (row, record) in &records {
        let times = feedback.get(row).map(|of_row| Value::from(of_row.times.clone()));
        writeln!(out, "{}", indented(&with_times(record, times.as_ref())))?;
    }
    if !records.is_empty() {
        return Ok(());
    }
    if feedback.is_empty() {
        bail!("{path}: there is no prediction {id}, and no feedback for it");
    }
    for (row, RowFeedback { truths, times }) in feedback {
        let (truths, times) = (Value::from(truths), Value::from(times));
        let found = format!("{{\"id\":\"{id}\",\"row\":{row},\"feedback\":{truths}}}");
        writeln!(out, "{}", indented(&with_times(&found, Some(&times))))?;
    }
    bail!(
        "there is feedback for {id}, but no prediction: it was deleted, or logged on another node"
    )
}

/// The feedback for one row: values and times by kind.
#[derive(Debug, Default)]
struct RowFeedback {
    truths: Map<String, Value>,
    times: Map<String, Value>,
}

/// `record`, a JSON object, with the times of its feedback as its last member.
fn with_times(record: &str, times: Option<&Value>) -> String {
    match (record.strip_suffix('}'), times) {
        (Some(members), Some(times)) => format!("{members},\"feedback_times\":{times}}}"),
        _ => record.to_owned(),
    }
}

/// `json` with a line per member, in the order of the members. A parsed object would be in the order of
/// its keys.
fn indented(json: &str) -> String {
    let mut text = String::with_capacity(2 * json.len());
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    let mut rest = json.chars().peekable();
    while let Some(c) = rest.next() {
        if quoted {
            text.push(c);
            quoted = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            continue;
        }
        match c {
            '"' => {
                quoted = true;
                text.push(c);
            }
            '{' | '[' => {
                text.push(c);
                if !matches!(rest.peek(), Some('}' | ']')) {
                    depth += 1;
                    new_line(&mut text, depth);
                }
            }
            '}' | ']' => {
                if !text.ends_with(['{', '[']) {
                    depth = depth.saturating_sub(1);
                    new_line(&mut text, depth);
                }
                text.push(c);
            }
            ',' => {
                text.push(c);
                new_line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => text.push(c),
        }
    }
    text
}

fn new_line(text: &mut String, depth: usize) {
    text.push('\n');
    text.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn members_stay_in_their_order() {
        let record = r#"{"row":0,"id":"a","inputs":{},"outputs":{"b":"{\",:\\","a":[1,2]},"omitted":[],"feedback":{"label":"c"}}"#;
        let expected = r#"{
  "row": 0,
  "id": "a",
  "inputs": {},
  "outputs": {
    "b": "{\",:\\",
    "a": [
      1,
      2
    ]
  },
  "omitted": [],
  "feedback": {
    "label": "c"
  },
  "feedback_times": {
    "label": "t"
  }
}"#;
        assert_eq!(indented(&with_times(record, Some(&json!({ "label": "t" })))), expected);
        assert_eq!(with_times(record, None), record);
    }

    proptest! {
        #[test]
        fn indented_text_has_the_same_value(
            texts in prop::collection::btree_map(".{0,8}", ".{0,8}", 0..4), number: i32,
        ) {
            let value = json!({ "texts": texts, "list": [number, null, [], {}] });
            let text = indented(&value.to_string());
            prop_assert_eq!(&text, &serde_json::to_string_pretty(&value).unwrap());
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        }
    }
}
