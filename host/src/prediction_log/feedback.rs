//! What `POST /v2/feedback` takes: the ground truth of predictions, or a reward for them. Pure: it
//! reads a body and finds every problem that needs no look into the log.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize as DeserializeDerive, Serialize};
use uuid::Uuid;

use super::scalar::{Members, Scalar};
use super::times;

/// Items of one request.
pub const MAX_ITEMS: usize = 10_000;
/// Bytes of a label.
const MAX_LABEL: usize = 1024;

/// What is known of a prediction.
#[derive(Clone, Debug, PartialEq)]
pub enum Truth {
    /// The true class.
    Label(String),
    /// The true number.
    Value(f64),
    /// How good the prediction's consequence was.
    Reward(f64),
}

impl Truth {
    /// As it is called in requests, in the file and in exports.
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
pub struct Item {
    /// Its number in the request.
    pub index: usize,
    pub prediction_id: Uuid,
    pub row: u32,
    pub truth: Truth,
    /// When it was known, in microseconds of Unix time. Of two that contradict each other the later
    /// one counts.
    pub time: i64,
}

/// Why an item was not stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct Rejection {
    pub index: usize,
    pub error: String,
}

/// What became of the items of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct Receipt {
    /// Items that are stored.
    pub accepted: usize,
    /// Those among them whose prediction is not in the log (yet).
    pub unknown: usize,
    pub rejected: Vec<Rejection>,
}

/// A body, read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    pub items: Vec<Item>,
    pub rejected: Vec<Rejection>,
}

/// Why a body holds no feedback.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("{0}")]
    Invalid(String),
    #[error("more than {MAX_ITEMS} items: send them in several requests")]
    TooMany,
}

const FORM: &str = r#"write {"prediction_id": "...", "label": "..."}, a list of such objects, or {"feedback": [...]}"#;

/// Reads a body. `now` is the time of what has none, in microseconds of Unix time.
pub fn parse(body: &[u8], now: i64) -> Result<Parsed, ParseError> {
    let body: Body<'_> = serde_json::from_slice(body).map_err(|error| {
        ParseError::Invalid(format!("the body is not as expected: {error}; {FORM}"))
    })?;
    let List { elements, too_many } = match body {
        Body::List(list) => list,
        Body::Item(members) => List { elements: vec![Some(members)], too_many: false },
        Body::Both => {
            let problem = "`feedback` beside other keys: every item goes into the list";
            return Err(ParseError::Invalid(problem.into()));
        }
    };
    if too_many {
        return Err(ParseError::TooMany);
    }
    if elements.is_empty() {
        return Err(ParseError::Invalid(format!("there are no items; {FORM}")));
    }
    let mut parsed = Parsed::default();
    for (index, element) in elements.iter().enumerate() {
        let read = element.as_ref().ok_or_else(|| "is no object".to_owned());
        match read.and_then(|members| item(index, members, now)) {
            Ok(item) => parsed.items.push(item),
            Err(error) => parsed.rejected.push(Rejection { index, error }),
        }
    }
    Ok(parsed)
}

fn item(index: usize, members: &Members<'_>, now: i64) -> Result<Item, String> {
    let (mut id, mut row, mut truth, mut time) = (None, None, None, None);
    for (position, (name, value)) in members.0.iter().enumerate() {
        if members.0[..position].iter().any(|(earlier, _)| earlier == name) {
            return Err(format!("`{}` is there twice", shortened(name)));
        }
        // What a client leaves out, it may write as null.
        if *value == Scalar::Null {
            continue;
        }
        let mut is = |found: Truth| match truth.replace(found) {
            None => Ok(()),
            Some(_) => Err(ONE_OF.to_owned()),
        };
        match &**name {
            "prediction_id" => id = Some(prediction_id(value)?),
            "row" => row = Some(row_number(value)?),
            "label" => is(Truth::Label(label(value)?))?,
            "value" => is(Truth::Value(number("value", value)?))?,
            "reward" => is(Truth::Reward(number("reward", value)?))?,
            "time" => time = Some(point_in_time(value)?),
            other => {
                return Err(format!(
                    "`{}`: there is no such key; there are prediction_id, row, label, value, \
                     reward, time",
                    shortened(other)
                ));
            }
        }
    }
    let prediction_id = id.ok_or(
        "`prediction_id` is missing: the response header \
                                  spinfer-prediction-id of the prediction",
    )?;
    let truth = truth.ok_or(ONE_OF)?;
    Ok(Item { index, prediction_id, row: row.unwrap_or(0), truth, time: time.unwrap_or(now) })
}

const ONE_OF: &str = "write one of `label`, `value` and `reward`";

fn prediction_id(value: &Scalar<'_>) -> Result<Uuid, String> {
    let id = match value {
        Scalar::Text(text) => Uuid::try_parse(text).ok(),
        _ => None,
    };
    id.ok_or_else(|| {
        format!(
            "`prediction_id`: {} is no UUID; write the response header spinfer-prediction-id",
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
        format!("`row`: {} is no row: write its number in the request, from 0 on", shown(value))
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
            Err(format!("`label`: {} is no class: write a string or an integer", shown(other)))
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a measurement: beyond 2^53 it is rounded")]
fn number(name: &str, value: &Scalar<'_>) -> Result<f64, String> {
    let number = match value {
        Scalar::Integer(number) => Some(*number as f64),
        Scalar::Number(number) => Some(*number).filter(|number| number.is_finite()),
        _ => None,
    };
    number.ok_or_else(|| format!("`{name}`: {} is no number", shown(value)))
}

fn point_in_time(value: &Scalar<'_>) -> Result<i64, String> {
    let time = match value {
        Scalar::Text(text) => times::parse(text),
        _ => None,
    };
    time.ok_or_else(|| {
        format!("`time`: {} is no time: write \"2026-11-30T12:00:00Z\" (RFC 3339)", shown(value))
    })
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

/// The beginning of `text`, for a message.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

/// A body as it was written.
enum Body<'a> {
    List(List<'a>),
    Item(Members<'a>),
    /// A list, and members of an item.
    Both,
}

/// What is no object is none.
#[derive(Default)]
struct List<'a> {
    elements: Vec<Option<Members<'a>>>,
    too_many: bool,
}

impl<'de> Deserialize<'de> for Body<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BodyVisitor;
        impl<'de> Visitor<'de> for BodyVisitor {
            type Value = Body<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or a list of objects")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Body<'de>, A::Error> {
                ListVisitor.visit_seq(list).map(Body::List)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body<'de>, A::Error> {
                let (mut list, mut members) = (None, Members::default());
                while let Some(key) = map.next_key::<String>()? {
                    if key == "feedback" {
                        list = Some(map.next_value()?);
                    } else {
                        members.0.push((key.into(), map.next_value()?));
                    }
                }
                Ok(match list {
                    None => Body::Item(members),
                    Some(list) if members.0.is_empty() => Body::List(list),
                    Some(_) => Body::Both,
                })
            }
        }
        deserializer.deserialize_any(BodyVisitor)
    }
}

impl<'de> Deserialize<'de> for List<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListVisitor)
    }
}

struct ListVisitor;

impl<'de> Visitor<'de> for ListVisitor {
    type Value = List<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<List<'de>, A::Error> {
        let mut found = List::default();
        while found.elements.len() < MAX_ITEMS {
            match list.next_element::<Element<'de>>()? {
                Some(Element(element)) => found.elements.push(element),
                None => return Ok(found),
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {
            found.too_many = true;
        }
        Ok(found)
    }
}

/// An object, or something else.
struct Element<'a>(Option<Members<'a>>);

impl<'de> Deserialize<'de> for Element<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementVisitor;
        impl<'de> Visitor<'de> for ElementVisitor {
            type Value = Element<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Element<'de>, A::Error> {
                let members = serde::de::value::MapAccessDeserializer::new(map);
                Members::deserialize(members).map(Some).map(Element)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Element<'de>, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Element(None))
            }

            fn visit_unit<E>(self) -> Result<Element<'de>, E> {
                Ok(Element(None))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Element<'de>, E> {
                Ok(Element(None))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Element<'de>, E> {
                Ok(Element(None))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Element<'de>, E> {
                Ok(Element(None))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Element<'de>, E> {
                Ok(Element(None))
            }

            fn visit_str<E>(self, _: &str) -> Result<Element<'de>, E> {
                Ok(Element(None))
            }
        }
        deserializer.deserialize_any(ElementVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn one(text: &str) -> Result<Item, String> {
        let mut parsed = parse(text.as_bytes(), 7).map_err(|error| error.to_string())?;
        parsed.items.pop().ok_or_else(|| parsed.rejected.remove(0).error)
    }

    #[test]
    fn an_object_a_list_and_a_list_in_an_object_are_the_same() {
        let item = format!(r#"{{"prediction_id": "{ID}", "label": "setosa"}}"#);
        let expected = one(&item).unwrap();
        assert_eq!(expected.truth, Truth::Label("setosa".into()));
        assert_eq!((expected.row, expected.time), (0, 7));
        for text in [format!("[{item}]"), format!(r#"{{"feedback": [{item}]}}"#)] {
            assert_eq!(one(&text), Ok(expected.clone()), "{text}");
        }
    }

    #[test]
    fn every_kind_of_truth_is_read() {
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
    fn a_problem_is_named_with_what_to_write() {
        let with = |members: &str| format!(r#"{{"prediction_id": "{ID}", {members}}}"#);
        for (text, part) in [
            (r#"{"label": "a"}"#.to_owned(), "`prediction_id` is missing"),
            (r#"{"prediction_id": "x", "label": "a"}"#.to_owned(), "\"x\" is no UUID"),
            (r#"{"prediction_id": 7, "label": "a"}"#.to_owned(), "7 is no UUID"),
            (with(r#""row": 0"#), "write one of `label`, `value` and `reward`"),
            (with(r#""label": "a", "value": 1"#), "write one of"),
            (with(r#""label": "a", "label": "b""#), "`label` is there twice"),
            (with(r#""label": "a", "row": -1"#), "-1 is no row"),
            (with(r#""label": "a", "row": 4294967296"#), "is no row"),
            (with(r#""label": """#), "is empty"),
            (with(r#""label": 1.5"#), "1.5 is no class"),
            (with(r#""value": "1""#), "\"1\" is no number"),
            (with(r#""value": [[1]]"#), "a list or an object is no number"),
            (with(r#""label": "a", "time": "yesterday""#), "\"yesterday\" is no time"),
            (with(r#""labels": "a""#), "`labels`: there is no such key"),
            ("[[]]".to_owned(), "is no object"),
            ("[1]".to_owned(), "is no object"),
            ("[]".to_owned(), "there are no items"),
            (r#"{"feedback": [], "row": 1}"#.to_owned(), "beside other keys"),
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
    fn more_items_than_allowed_are_refused_and_not_kept() {
        let items = |count: usize| format!("[{}]", vec!["0"; count].join(","));
        assert_eq!(parse(items(MAX_ITEMS).as_bytes(), 0).unwrap().rejected.len(), MAX_ITEMS);
        assert_eq!(parse(items(MAX_ITEMS + 1).as_bytes(), 0), Err(ParseError::TooMany));
    }

    #[test]
    fn rejected_items_keep_their_numbers() {
        let good = format!(r#"{{"prediction_id": "{ID}", "reward": 1}}"#);
        let parsed = parse(format!("[{good}, 1, {good}, {{}}]").as_bytes(), 0).unwrap();
        assert_eq!(parsed.items.iter().map(|item| item.index).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(parsed.rejected.iter().map(|item| item.index).collect::<Vec<_>>(), [1, 3]);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in r#"[\[\]{}",:0-9a-e.\-]{0,60}"#) {
            let _ = parse(text.as_bytes(), 0);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&bytes, 0);
        }

        #[test]
        fn every_item_is_read_or_rejected(
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
