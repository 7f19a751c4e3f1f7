//! A record as readers return it: the one list of its members, from which JSON, streams and CloudEvents are
//! written.

use std::borrow::Cow;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::prediction_log::json;
use crate::prediction_log::times::format;

/// A stored record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredRecord {
    pub id: Uuid,
    pub row: i64,
    /// Microseconds of Unix time.
    pub time: i64,
    pub model: String,
    pub version: String,
    pub route: String,
    pub component: String,
    pub experiment: Option<String>,
    pub variant: Option<String>,
    /// Keyed hash of the unit, 16 hexadecimal digits.
    pub unit: Option<String>,
    /// The probability with which the variant was drawn; `None` if it was not drawn.
    pub propensity: Option<f64>,
    /// The variant that could not serve the request, if control served instead.
    pub failed_over: Option<String>,
    pub cache: String,
    pub status: i64,
    pub latency_us: i64,
    /// Probability with which the request was logged; `None` in records of schema version 1.
    pub sample: Option<f64>,
    pub trace_id: Option<String>,
    /// Inputs by name, as a JSON object.
    pub inputs: String,
    /// Outputs by name, as a JSON object.
    pub outputs: String,
    /// Attributes by name, as a JSON object.
    pub attributes: String,
    /// Tensors that are too wide to be logged, as a JSON array.
    pub omitted: Option<String>,
    pub feedback: StoredFeedback,
}

/// The stored feedback for a record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredFeedback {
    pub label: Option<String>,
    pub value: Option<f64>,
    pub reward: Option<f64>,
}

impl StoredFeedback {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The value of a member of a record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Member<'a> {
    Id(Uuid),
    /// Microseconds of Unix time.
    Time(i64),
    Integer(i64),
    Text(&'a str),
    Optional(Option<&'a str>),
    Number(Option<f64>),
    /// A JSON object.
    Object(&'a str),
    /// A JSON array; `None` if it is empty.
    List(Option<&'a str>),
}

impl<'a> Member<'a> {
    /// The value as text, which is empty if there is none.
    #[must_use]
    pub fn text(self) -> Cow<'a, str> {
        match self {
            Self::Id(id) => id.to_string().into(),
            Self::Time(time) => format(time).into(),
            Self::Integer(number) => number.to_string().into(),
            Self::Number(number) => {
                number.map(|number| number.to_string()).unwrap_or_default().into()
            }
            Self::Text(text) | Self::Object(text) => text.into(),
            Self::Optional(text) | Self::List(text) => text.unwrap_or_default().into(),
        }
    }

    fn write_json(self, into: &mut Vec<u8>) {
        match self {
            Self::Id(_) | Self::Time(_) | Self::Text(_) => json::write(&*self.text(), into),
            Self::Integer(number) => json::write(&number, into),
            Self::Optional(text) => json::write(&text, into),
            Self::Number(number) => json::write(&number, into),
            // As stored.
            Self::Object(json) => into.extend_from_slice(json.as_bytes()),
            Self::List(json) => into.extend_from_slice(json.unwrap_or("[]").as_bytes()),
        }
    }
}

impl StoredRecord {
    /// The members and their names, without the feedback, in the order of every output.
    #[must_use]
    pub fn members(&self) -> [(&'static str, Member<'_>); 21] {
        let Self {
            id,
            row,
            time,
            model,
            version,
            route,
            component,
            experiment,
            variant,
            unit,
            propensity,
            failed_over,
            cache,
            status,
            latency_us,
            sample,
            trace_id,
            inputs,
            outputs,
            attributes,
            omitted,
            feedback: _,
        } = self;
        [
            ("id", Member::Id(*id)),
            ("row", Member::Integer(*row)),
            ("time", Member::Time(*time)),
            ("model", Member::Text(model)),
            ("version", Member::Text(version)),
            ("route", Member::Text(route)),
            ("component", Member::Text(component)),
            ("experiment", Member::Optional(experiment.as_deref())),
            ("variant", Member::Optional(variant.as_deref())),
            ("unit", Member::Optional(unit.as_deref())),
            ("propensity", Member::Number(*propensity)),
            ("failed_over", Member::Optional(failed_over.as_deref())),
            ("cache", Member::Text(cache)),
            ("status", Member::Integer(*status)),
            ("latency_us", Member::Integer(*latency_us)),
            ("sample", Member::Number(*sample)),
            ("trace_id", Member::Optional(trace_id.as_deref())),
            ("inputs", Member::Object(inputs)),
            ("outputs", Member::Object(outputs)),
            ("attributes", Member::Object(attributes)),
            ("omitted", Member::List(omitted.as_deref())),
        ]
    }

    /// Appends the record as one JSON object.
    pub fn write_json(&self, into: &mut Vec<u8>) {
        for (index, (name, member)) in self.members().into_iter().enumerate() {
            into.push(if index == 0 { b'{' } else { b',' });
            json::write(name, into);
            into.push(b':');
            member.write_json(into);
        }
        if !self.feedback.is_empty() {
            let StoredFeedback { label, value, reward } = &self.feedback;
            let mut members = Map::new();
            members.extend(label.clone().map(|label| ("label".to_owned(), label.into())));
            members.extend(value.map(|value| ("value".to_owned(), value.into())));
            members.extend(reward.map(|reward| ("reward".to_owned(), reward.into())));
            into.extend_from_slice(b",\"feedback\":");
            json::write(&Value::Object(members), into);
        }
        into.push(b'}');
    }
}
