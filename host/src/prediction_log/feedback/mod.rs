//! Feedback: ground truth of, or rewards for, predictions, in the body of `POST /v2/feedback` or in a
//! [`mod@file`]. Parses it, and finds every problem that can be found without the log.

mod body;
pub mod file;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::scalar::{Members, Scalar};
use super::times;
use body::{FeedbackBody, List};

/// Maximum number of items of one request.
pub const MAX_ITEMS: usize = 10_000;
/// Maximum time by which the `time` of an item may be ahead of the clock, in microseconds: later feedback
/// replaces earlier feedback, so one in the future would prevent every correction.
const MAX_CLOCK_SKEW: i64 = 5 * 60 * 1_000_000;
/// Maximum length of a label, in bytes.
const MAX_LABEL: usize = 1024;

/// The feedback for a prediction.
#[derive(Clone, Debug, PartialEq)]
pub enum Truth {
    /// The true class.
    Label(String),
    /// The true number.
    Value(f64),
    /// How good the consequence of the prediction was.
    Reward(f64),
}

impl Truth {
    /// Name in requests, in the file and in exports.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Label(_) => "label",
            Self::Value(_) => "value",
            Self::Reward(_) => "reward",
        }
    }

    #[must_use]
    pub(super) fn label(&self) -> Option<&str> {
        match self {
            Self::Label(label) => Some(label),
            Self::Value(_) | Self::Reward(_) => None,
        }
    }

    #[must_use]
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Label(_) => None,
            Self::Value(number) | Self::Reward(number) => Some(*number),
        }
    }
}

/// Feedback for one record.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedbackItem {
    /// Index in the request.
    pub index: usize,
    pub prediction_id: Uuid,
    pub row: u32,
    pub truth: Truth,
    /// Time of the observation, in microseconds of Unix time. The latest one replaces the others.
    pub time: i64,
}

/// Why an item was not stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    pub index: usize,
    pub error: String,
}

/// The result of a feedback request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Number of stored items.
    pub accepted: usize,
    /// Number of stored items whose prediction is not in the log (yet).
    pub unknown: usize,
    /// Number of stored items that replaced other feedback, which they contradict.
    #[serde(default)]
    pub replaced: usize,
    /// Number of stored items that changed nothing: the log had the same feedback, or later one.
    #[serde(default)]
    pub unchanged: usize,
    pub rejected: Vec<Rejection>,
}

/// A parsed body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    pub items: Vec<FeedbackItem>,
    pub rejected: Vec<Rejection>,
}

/// Why a body is rejected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("{0}")]
    Invalid(String),
    #[error("the body has more than {MAX_ITEMS} items: send them in several requests")]
    TooMany,
}

const FORM: &str = r#"write {"prediction_id": "...", "label": "..."}, a list of such objects, or {"feedback": [...]}"#;

/// Parses a body. `now` is the time of items without one, in microseconds of Unix time.
///
/// # Errors
/// Fails if the body as a whole is invalid. Invalid items are in [`Parsed::rejected`].
pub fn parse(body: &[u8], now: i64) -> Result<Parsed, ParseError> {
    let body: FeedbackBody<'_> = serde_json::from_slice(body)
        .map_err(|error| ParseError::Invalid(format!("invalid body: {error}; {FORM}")))?;
    let List { elements, too_many } = match body {
        FeedbackBody::List(list) => list,
        FeedbackBody::Item(members) => List { elements: vec![Some(members)], too_many: false },
        FeedbackBody::Both => {
            let problem = "`feedback` must be the only key; write every item into its list";
            return Err(ParseError::Invalid(problem.into()));
        }
    };
    if too_many {
        return Err(ParseError::TooMany);
    }
    if elements.is_empty() {
        return Err(ParseError::Invalid(format!("the body has no items; {FORM}")));
    }
    let mut parsed = Parsed::default();
    for (index, element) in elements.iter().enumerate() {
        let read = element.as_ref().ok_or_else(|| "is not an object".to_owned());
        match read.and_then(|members| item(index, members, now)) {
            Ok(item) => parsed.items.push(item),
            Err(error) => parsed.rejected.push(Rejection { index, error }),
        }
    }
    Ok(parsed)
}

fn item(index: usize, members: &Members<'_>, now: i64) -> Result<FeedbackItem, String> {
    let (mut id, mut row, mut truth, mut time) = (None, None, None, None);
    for (position, (name, value)) in members.0.iter().enumerate() {
        if members.0[..position].iter().any(|(earlier, _)| earlier == name) {
            return Err(format!("`{}` is a duplicate key; remove one", shortened(name)));
        }
        // `null` means absent.
        if *value == Scalar::Null {
            continue;
        }
        let mut set = |found: Truth| match truth.replace(found) {
            None => Ok(()),
            Some(_) => Err(ONE_OF.to_owned()),
        };
        match &**name {
            "prediction_id" => id = Some(prediction_id(value)?),
            "row" => row = Some(row_number(value)?),
            "label" => set(Truth::Label(label(value)?))?,
            "value" => set(Truth::Value(number("value", value)?))?,
            "reward" => set(Truth::Reward(number("reward", value)?))?,
            "time" => time = Some(timestamp(value, now)?),
            other => {
                return Err(format!(
                    "`{}`: unknown key; expected one of prediction_id, row, label, value, reward, \
                     time",
                    shortened(other)
                ));
            }
        }
    }
    let prediction_id = id.ok_or(
        "`prediction_id` is missing; write the response header spinfer-prediction-id of the \
         prediction",
    )?;
    let truth = truth.ok_or(ONE_OF)?;
    Ok(FeedbackItem {
        index,
        prediction_id,
        row: row.unwrap_or(0),
        truth,
        time: time.unwrap_or(now),
    })
}

const ONE_OF: &str = "write exactly one of `label`, `value` and `reward`";

fn prediction_id(value: &Scalar<'_>) -> Result<Uuid, String> {
    let id = match value {
        Scalar::Text(text) => Uuid::try_parse(text).ok(),
        _ => None,
    };
    id.ok_or_else(|| {
        format!(
            "`prediction_id`: {} is not a UUID; write the response header spinfer-prediction-id",
            shown(value)
        )
    })
}

fn row_number(value: &Scalar<'_>) -> Result<u32, String> {
    let row = match value {
        Scalar::Integer(row) => u32::try_from(*row).ok(),
        _ => None,
    };
    row.ok_or_else(|| {
        format!("`row`: {} is not a row; write its index in the request, from 0", shown(value))
    })
}

fn label(value: &Scalar<'_>) -> Result<String, String> {
    match value {
        Scalar::Text(text) if text.is_empty() => Err("`label`: is empty".into()),
        Scalar::Text(text) if text.len() > MAX_LABEL => {
            Err(format!("`label`: is longer than {MAX_LABEL} bytes"))
        }
        Scalar::Text(text) => Ok(text.clone().into_owned()),
        Scalar::Integer(number) => Ok(number.to_string()),
        other => {
            Err(format!("`label`: {} is not a class; write a string or an integer", shown(other)))
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a measurement, rounded beyond 2^53")]
fn number(name: &str, value: &Scalar<'_>) -> Result<f64, String> {
    let number = match value {
        Scalar::Integer(number) => Some(*number as f64),
        Scalar::Number(number) => Some(*number).filter(|number| number.is_finite()),
        _ => None,
    };
    number.ok_or_else(|| format!("`{name}`: {} is not a number", shown(value)))
}

fn timestamp(value: &Scalar<'_>, now: i64) -> Result<i64, String> {
    let time = match value {
        Scalar::Text(text) => times::parse(text),
        _ => None,
    };
    let time = time.ok_or_else(|| {
        format!("`time`: {} is not a time; write \"2026-11-30T12:00:00Z\" (RFC 3339)", shown(value))
    })?;
    if is_in_future(time, now) {
        return Err(format!(
            "`time`: {} is in the future: the clock is at {}, and at most 5 minutes ahead of it are \
             accepted; write when it was known, or omit `time` for now",
            shown(value),
            times::format(now)
        ));
    }
    Ok(time)
}

/// Whether `time` is ahead of `now` by more than clocks may differ.
fn is_in_future(time: i64, now: i64) -> bool {
    time > now.saturating_add(MAX_CLOCK_SKEW)
}

/// When stored feedback with this `time` was known: at the latest when it was `received`. Earlier
/// versions stored times in the future.
#[must_use]
pub fn observed_at(time: i64, received: i64) -> i64 {
    if is_in_future(time, received) { received } else { time }
}

fn shown(value: &Scalar<'_>) -> String {
    match value {
        Scalar::Null => "null".into(),
        Scalar::Boolean(value) => value.to_string(),
        Scalar::Integer(value) => value.to_string(),
        Scalar::Number(value) => value.to_string(),
        Scalar::Text(text) => format!("\"{}\"", shortened(text)),
        Scalar::Nested => "a list or an object".into(),
    }
}

/// The start of `text`, for a message.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn one(text: &str) -> Result<FeedbackItem, String> {
        let mut parsed = parse(text.as_bytes(), 7).map_err(|error| error.to_string())?;
        parsed.items.pop().ok_or_else(|| parsed.rejected.remove(0).error)
    }

    #[test]
    fn object_list_and_list_in_an_object_are_accepted() {
        let item = format!(r#"{{"prediction_id": "{ID}", "label": "setosa"}}"#);
        let expected = one(&item).unwrap();
        assert_eq!(expected.truth, Truth::Label("setosa".into()));
        assert_eq!((expected.row, expected.time), (0, 7));
        for text in [format!("[{item}]"), format!(r#"{{"feedback": [{item}]}}"#)] {
            assert_eq!(one(&text), Ok(expected.clone()), "{text}");
        }
    }

    #[test]
    fn every_kind_of_feedback_is_read() {
        for (member, truth) in [
            (r#""label": 3"#, Truth::Label("3".into())),
            (r#""value": 1.5"#, Truth::Value(1.5)),
            (r#""value": -2, "label": null"#, Truth::Value(-2.0)),
            (r#""reward": 0.25"#, Truth::Reward(0.25)),
        ] {
            let text = format!(
                r#"{{"row": 2, {member}, "prediction_id": "{ID}", "time": "1970-01-01T00:00:01Z"}}"#
            );
            let item = one(&text).unwrap();
            assert_eq!((item.row, item.truth, item.time), (2, truth, 1_000_000), "{text}");
        }
    }

    #[test]
    fn error_names_the_problem_and_the_fix() {
        let with = |members: &str| format!(r#"{{"prediction_id": "{ID}", {members}}}"#);
        for (text, part) in [
            (r#"{"label": "a"}"#.to_owned(), "`prediction_id` is missing"),
            (r#"{"prediction_id": "x", "label": "a"}"#.to_owned(), "\"x\" is not a UUID"),
            (r#"{"prediction_id": 7, "label": "a"}"#.to_owned(), "7 is not a UUID"),
            (with(r#""row": 0"#), "write exactly one of `label`, `value` and `reward`"),
            (with(r#""label": "a", "value": 1"#), "write exactly one of"),
            (with(r#""label": "a", "label": "b""#), "`label` is a duplicate key"),
            (with(r#""label": "a", "row": -1"#), "-1 is not a row"),
            (with(r#""label": "a", "row": 4294967296"#), "is not a row"),
            (with(r#""label": """#), "is empty"),
            (with(r#""label": 1.5"#), "1.5 is not a class"),
            (with(r#""value": "1""#), "\"1\" is not a number"),
            (with(r#""value": [[1]]"#), "a list or an object is not a number"),
            (with(r#""label": "a", "time": "yesterday""#), "\"yesterday\" is not a time"),
            (with(r#""labels": "a""#), "`labels`: unknown key"),
            ("[[]]".to_owned(), "is not an object"),
            ("[1]".to_owned(), "is not an object"),
            ("[]".to_owned(), "the body has no items"),
            (r#"{"feedback": [], "row": 1}"#.to_owned(), "must be the only key"),
            (r#"{"feedback": 7}"#.to_owned(), "a list of objects"),
            ("7".to_owned(), "an object or a list of objects"),
            ("".to_owned(), "EOF"),
            ("[{}".to_owned(), "EOF"),
        ] {
            let error = one(&text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn time_in_the_future_is_rejected_beyond_the_clock_skew() {
        let now = times::parse("2026-11-30T12:00:00Z").unwrap();
        let at = |time: &str| {
            let text = format!(r#"{{"prediction_id": "{ID}", "label": "a", "time": "{time}"}}"#);
            let mut parsed = parse(text.as_bytes(), now).unwrap();
            parsed.items.pop().ok_or_else(|| parsed.rejected.remove(0).error)
        };
        for time in ["2025-11-30T12:00:00Z", "2026-11-30T12:05:00Z", "2026-11-30T13:05:00+01:00"] {
            assert_eq!(at(time).map(|item| item.time), Ok(times::parse(time).unwrap()), "{time}");
        }
        for time in ["2026-11-30T12:05:00.000001Z", "2099-01-01T00:00:00Z"] {
            let error = at(time).unwrap_err();
            let part = format!(
                "`time`: \"{time}\" is in the future: the clock is at 2026-11-30T12:00:00.000000Z"
            );
            assert!(error.starts_with(&part) && error.ends_with("omit `time` for now"), "{error}");
        }
        let far = times::parse("2099-01-01T00:00:00Z").unwrap();
        assert_eq!([observed_at(far, now), observed_at(7, now)], [now, 7]);
        assert_eq!(observed_at(now + MAX_CLOCK_SKEW, now), now + MAX_CLOCK_SKEW);
    }

    #[test]
    fn too_many_items_are_rejected() {
        let items = |count: usize| format!("[{}]", vec!["0"; count].join(","));
        assert_eq!(parse(items(MAX_ITEMS).as_bytes(), 0).unwrap().rejected.len(), MAX_ITEMS);
        assert_eq!(parse(items(MAX_ITEMS + 1).as_bytes(), 0), Err(ParseError::TooMany));
    }

    #[test]
    fn rejected_items_have_their_index() {
        let good = format!(r#"{{"prediction_id": "{ID}", "reward": 1}}"#);
        let parsed = parse(format!("[{good}, 1, {good}, {{}}]").as_bytes(), 0).unwrap();
        assert_eq!(parsed.items.iter().map(|item| item.index).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(parsed.rejected.iter().map(|item| item.index).collect::<Vec<_>>(), [1, 3]);
    }

    proptest! {
        #[test]
        fn any_text_is_handled(text in r#"[\[\]{}",:0-9a-e.\-]{0,60}"#) {
            let _ = parse(text.as_bytes(), 0);
        }

        #[test]
        fn any_bytes_are_handled(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&bytes, 0);
        }

        #[test]
        fn every_item_is_accepted_or_rejected(
            items in prop::collection::vec(
                prop_oneof![
                    Just("null".to_owned()),
                    Just(format!(r#"{{"prediction_id": "{ID}"}}"#)),
                    any::<u128>().prop_map(|id| format!(
                        r#"{{"prediction_id": "{}", "value": 1}}"#, Uuid::from_u128(id)
                    )),
                ],
                1..20,
            ),
        ) {
            let parsed = parse(format!("[{}]", items.join(",")).as_bytes(), 0).unwrap();
            prop_assert_eq!(parsed.items.len() + parsed.rejected.len(), items.len());
        }
    }
}
