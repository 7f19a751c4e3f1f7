//! An entry of a stream: flat fields, the same for each record, as Redis stores equal names of
//! successive entries once. What is read back is foreign input: anything may write to the stream.

use uuid::Uuid;

use crate::prediction_log::feedback::{Truth, shortened};
use crate::prediction_log::reader::{StoredFeedback, StoredRecord};
use crate::prediction_log::scalar::is_flat_object;
use crate::prediction_log::sinks::{FeedbackEvent, SinkEvent};
use crate::prediction_log::times;

/// The fields of an entry, in their order.
#[derive(Debug)]
pub(in crate::prediction_log::sinks) struct StreamEntry(Vec<(&'static str, String)>);

impl StreamEntry {
    pub(in crate::prediction_log::sinks) fn into_fields(self) -> Vec<(&'static str, String)> {
        self.0
    }
}

impl From<&SinkEvent> for StreamEntry {
    fn from(event: &SinkEvent) -> Self {
        let mut fields = vec![("kind", event.kind().to_owned())];
        match event {
            SinkEvent::Record(record) => {
                let members = record.members().into_iter();
                fields.extend(members.map(|(name, member)| (name, member.text().into_owned())));
            }
            SinkEvent::Feedback(FeedbackEvent { id, row, truth, time }) => {
                let truth = match truth {
                    Truth::Label(label) => label.clone(),
                    Truth::Value(number) | Truth::Reward(number) => number.to_string(),
                };
                fields.extend([
                    ("id", id.to_string()),
                    ("row", row.to_string()),
                    ("time", times::format(*time)),
                    ("truth", truth),
                ]);
            }
        }
        Self(fields)
    }
}

/// Why an entry is not one of this program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {entry} of the stream: field `{field}` {problem}")]
pub struct EntryError {
    entry: String,
    field: &'static str,
    problem: String,
}

/// An entry as read: its id in the stream, and the names and values of its fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawEntry {
    pub id: String,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl RawEntry {
    /// When Redis received the entry, in microseconds of Unix time: the first part of its id.
    #[must_use]
    pub fn received(&self) -> Option<i64> {
        let (millis, _) = self.id.split_once('-')?;
        millis.parse::<i64>().ok()?.checked_mul(1000)
    }

    /// Parses the entry. Unknown fields are ignored: a later version may have more. Fields that an earlier
    /// version does not have are absent.
    ///
    /// # Errors
    /// Fails if a field is missing or invalid.
    pub fn event(&self) -> Result<SinkEvent, EntryError> {
        let kind = self.text("kind")?;
        let id = self.parsed("id", |text| Uuid::try_parse(text).ok(), "a UUID")?;
        let row = self.parsed("row", |text| text.parse::<u32>().ok(), "a row number")?.into();
        let time = self.parsed("time", times::parse, "a time of RFC 3339")?;
        if kind == "record" {
            return self.record(id, row, time).map(SinkEvent::Record);
        }
        let number = || {
            let finite = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
            self.parsed("truth", finite, "a number")
        };
        let truth = match kind {
            "label" => Truth::Label(self.text("truth")?.to_owned()),
            "value" => Truth::Value(number()?),
            "reward" => Truth::Reward(number()?),
            _ => {
                let problem = "is none of record, label, value and reward";
                return Err(self.error("kind", problem.into()));
            }
        };
        Ok(SinkEvent::Feedback(FeedbackEvent { id, row, truth, time }))
    }

    fn record(&self, id: Uuid, row: i64, time: i64) -> Result<StoredRecord, EntryError> {
        let text = |field| self.text(field).map(str::to_owned);
        let optional = |field| {
            let text = self.text_or_empty(field);
            text.map(|text| (!text.is_empty()).then(|| text.to_owned()))
        };
        let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number >= 0);
        let object = |field| {
            self.parsed(
                field,
                |text| is_flat_object(text).then(|| text.to_owned()),
                "a JSON object of numbers, booleans and texts",
            )
        };
        let list = |text: &str| {
            let is_list = text.is_empty() || serde_json::from_str::<Vec<String>>(text).is_ok();
            is_list.then(|| Some(text.to_owned()).filter(|text| !text.is_empty()))
        };
        Ok(StoredRecord {
            id,
            row,
            time,
            model: text("model")?,
            version: text("version")?,
            route: text("route")?,
            component: text("component")?,
            experiment: optional("experiment")?,
            variant: optional("variant")?,
            unit: optional("unit")?,
            propensity: self.probability("propensity")?,
            failed_over: optional("failed_over")?,
            cache: text("cache")?,
            status: self
                .parsed("status", |text| text.parse::<u16>().ok(), "an HTTP status")?
                .into(),
            latency_us: self.parsed("latency_us", number, "a number of microseconds")?,
            sample: self.probability("sample")?,
            trace_id: optional("trace_id")?,
            inputs: object("inputs")?,
            outputs: object("outputs")?,
            attributes: object("attributes")?,
            omitted: self.parsed("omitted", list, "a JSON list of names")?,
            feedback: StoredFeedback::default(),
        })
    }

    /// A probability; `None` if the variant was not drawn, or the sample is not known.
    fn probability(&self, field: &'static str) -> Result<Option<f64>, EntryError> {
        if self.text_or_empty(field)?.is_empty() {
            return Ok(None);
        }
        let probability = |text: &str| text.parse::<f64>().ok().filter(|p| (0.0..=1.0).contains(p));
        self.parsed(field, probability, "a probability from 0 to 1").map(Some)
    }

    fn parsed<T>(
        &self,
        field: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
        expected: &str,
    ) -> Result<T, EntryError> {
        let text = self.text(field)?;
        // In a line of JSON, a line break would be the end of the record.
        let parsed = if text.contains(['\n', '\r']) { None } else { parse(text) };
        parsed.ok_or_else(|| self.error(field, format!("is not {expected}: {:?}", shortened(text))))
    }

    fn text_or_empty(&self, field: &'static str) -> Result<&str, EntryError> {
        let has_field = self.fields.iter().any(|(name, _)| name == field.as_bytes());
        if has_field { self.text(field) } else { Ok("") }
    }

    fn text(&self, field: &'static str) -> Result<&str, EntryError> {
        let found = self.fields.iter().find(|(name, _)| name == field.as_bytes());
        let (_, value) = found.ok_or_else(|| self.error(field, "is missing".into()))?;
        std::str::from_utf8(value).map_err(|_| self.error(field, "is not UTF-8".into()))
    }

    fn error(&self, field: &'static str, problem: String) -> EntryError {
        EntryError { entry: self.id.clone(), field, problem }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn raw(event: &SinkEvent) -> RawEntry {
        let fields = StreamEntry::from(event).into_fields().into_iter();
        let fields = fields.map(|(name, value)| (name.into(), value.into_bytes())).collect();
        RawEntry { id: "1-0".into(), fields }
    }

    fn record() -> SinkEvent {
        SinkEvent::Record(StoredRecord {
            id: Uuid::from_u128(7),
            row: 3,
            time: 1_796_040_000_000_001,
            model: "iris".into(),
            version: "1".into(),
            route: "/...".into(),
            component: "iris".into(),
            experiment: None,
            variant: None,
            unit: None,
            propensity: None,
            failed_over: None,
            cache: "miss".into(),
            status: 200,
            latency_us: 120,
            sample: Some(0.1),
            trace_id: None,
            inputs: r#"{"a":0.1,"b":null}"#.into(),
            outputs: r#"{"prediction":"é\n"}"#.into(),
            attributes: "{}".into(),
            omitted: None,
            feedback: StoredFeedback::default(),
        })
    }

    fn with(event: &SinkEvent, field: &str, value: Option<&[u8]>) -> RawEntry {
        let mut entry = raw(event);
        entry.fields.retain(|(name, _)| name != field.as_bytes());
        entry.fields.extend(value.map(|value| (field.into(), value.to_vec())));
        entry
    }

    #[test]
    fn record_is_read_back() {
        assert_eq!(raw(&record()).event(), Ok(record()));
        let SinkEvent::Record(all) = record() else { panic!() };
        let all = SinkEvent::Record(StoredRecord {
            experiment: Some("e".into()),
            variant: Some("v".into()),
            unit: Some("0123456789abcdef".into()),
            propensity: Some(0.1),
            failed_over: Some("w".into()),
            trace_id: Some("t".into()),
            omitted: Some(r#"["pixels[784]"]"#.into()),
            ..all
        });
        assert_eq!(raw(&all).event(), Ok(all.clone()));
        assert_eq!(with(&all, "later", Some(b"7")).event(), Ok(all), "an unknown field is ignored");
    }

    #[test]
    fn id_of_an_entry_has_the_time_of_its_receipt() {
        let received = |id: &str| RawEntry { id: id.into(), fields: Vec::new() }.received();
        assert_eq!(received("1796040000123-7"), Some(1_796_040_000_123_000));
        for id in ["", "7", "x-0", "9223372036854775807-0"] {
            assert_eq!(received(id), None, "{id}");
        }
    }

    #[test]
    fn entry_of_an_earlier_version_is_read_without_the_later_fields() {
        let SinkEvent::Record(record) = record() else { panic!() };
        let earlier = SinkEvent::Record(StoredRecord { sample: None, ..record });
        let mut entry = raw(&earlier);
        let later = ["sample", "unit", "propensity", "failed_over"];
        entry.fields.retain(|(name, _)| !later.iter().any(|later| name == later.as_bytes()));
        assert_eq!(entry.event(), Ok(earlier));
    }

    #[test]
    fn malformed_entry_is_rejected_with_its_id_and_field() {
        for (field, value, part) in [
            ("kind", None, "field `kind` is missing"),
            ("kind", Some(&b"nonsense"[..]), "`kind` is none of record"),
            ("id", Some(b"7"), "`id` is not a UUID: \"7\""),
            ("row", Some(b"-1"), "`row` is not a row number"),
            ("row", Some(b"4294967296"), "`row` is not a row number"),
            ("time", Some(b"yesterday"), "`time` is not a time"),
            ("status", Some(b"70000"), "`status` is not an HTTP status"),
            ("latency_us", Some(b"-5"), "`latency_us` is not a number"),
            ("model", Some(b"\xff"), "`model` is not UTF-8"),
            ("propensity", Some(b"1.5"), "`propensity` is not a probability"),
            ("propensity", Some(b"NaN"), "`propensity` is not a probability"),
            ("inputs", Some(b"[]"), "`inputs` is not a JSON object"),
            ("inputs", Some(b"{\"a\":[1]}"), "`inputs` is not a JSON object"),
            ("outputs", Some(b"{\"a\":1"), "`outputs` is not a JSON object"),
            ("outputs", Some(b"{\"a\":\n1}"), "`outputs` is not a JSON object"),
            ("omitted", Some(b"[1]"), "`omitted` is not a JSON list"),
        ] {
            let error = with(&record(), field, value).event().unwrap_err().to_string();
            assert!(error.starts_with("entry 1-0 of the stream: field"), "{error}");
            assert!(error.contains(part), "{error}");
        }
        let infinite =
            FeedbackEvent { id: Uuid::nil(), row: 0, truth: Truth::Value(f64::INFINITY), time: 0 };
        let error = raw(&SinkEvent::Feedback(infinite)).event().unwrap_err().to_string();
        assert!(error.contains("`truth` is not a number: \"inf\""), "{error}");
    }

    proptest! {
        #[test]
        fn feedback_is_read_back_exactly(
            id: u128,
            row: u32,
            kind in 0..3,
            label in ".{1,20}",
            number in -1e300..1e300,
            time in 0..253_402_300_799_999_999_i64,
        ) {
            let truth = match kind {
                0 => Truth::Label(label),
                1 => Truth::Value(number),
                _ => Truth::Reward(number),
            };
            let event = SinkEvent::Feedback(FeedbackEvent {
                id: Uuid::from_u128(id), row: row.into(), truth, time,
            });
            prop_assert_eq!(raw(&event).event(), Ok(event));
        }

        #[test]
        fn any_field_is_read_or_rejected_and_a_record_is_one_line(
            field: prop::sample::Index,
            value in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..20),
                "[\\[\\]{}\",:0-9a-z\n .\\-]{0,20}".prop_map(String::into_bytes),
            ],
        ) {
            let mut entry = raw(&record());
            let field = field.index(entry.fields.len());
            entry.fields[field].1 = value;
            if let Ok(event) = entry.event() {
                let mut line = Vec::new();
                event.write_line(&mut line);
                prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
                prop_assert!(serde_json::from_slice::<serde_json::Value>(&line).is_ok());
            }
        }
    }
}
