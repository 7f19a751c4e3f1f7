//! JSON values of the log: numbers, texts and booleans. Nested values are skipped, so that no input
//! takes more memory than its text.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar<'a> {
    Null,
    Boolean(bool),
    Integer(i64),
    Number(f64),
    Text(Cow<'a, str>),
    /// An array or an object.
    Nested,
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Integer(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "a float beyond signed 64 bits")]
    fn visit_u64<E>(self, value: u64) -> Result<Scalar<'de>, E> {
        Ok(i64::try_from(value).map_or(Scalar::Number(value as f64), Scalar::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Number(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Scalar<'de>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nested)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nested)
    }
}

/// The members of an object, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Members<'a>(pub(super) Vec<(Cow<'a, str>, Scalar<'a>)>);

impl<'a> Members<'a> {
    /// The members of the JSON object `text`; none if it is no object.
    pub(super) fn of(text: &'a str) -> Self {
        flat(text).map_or_else(|| serde_json::from_str(text).unwrap_or_default(), Self)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Scalar<'a>> {
        self.0.iter().find(|(member, _)| member == name).map(|(_, value)| value)
    }
}

/// Whether `text` is a JSON object without nested values.
pub(super) fn is_flat_object(text: &str) -> bool {
    let members = serde_json::from_str::<Members<'_>>(text);
    members.is_ok_and(|members| members.0.iter().all(|(_, value)| *value != Scalar::Nested))
}

/// Parses an object in the form that the log writes: nothing nested, no spaces. `None` for other
/// forms. Implemented here, as `serde_json` may be off by one bit in a number, unless its feature
/// `float_roundtrip` slows down every number of the program.
fn flat(text: &str) -> Option<Vec<(Cow<'_, str>, Scalar<'_>)>> {
    let mut rest = text.strip_prefix('{')?;
    let mut members = Vec::with_capacity(8);
    if rest == "}" {
        return Some(members);
    }
    loop {
        let (name, after) = string(rest)?;
        let (value, after) = scalar(after.strip_prefix(':')?)?;
        members.push((name, value));
        match after {
            "}" => return Some(members),
            _ => rest = after.strip_prefix(',')?,
        }
    }
}

/// The string that `text` starts with, and the rest.
fn string(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let inner = text.strip_prefix('"')?;
    let end = inner.find(['"', '\\'])?;
    if inner.as_bytes()[end] == b'"' {
        let whole = &inner[..end];
        let is_plain = whole.bytes().all(|byte| byte >= b' ');
        return is_plain.then(|| (Cow::Borrowed(whole), &inner[end + 1..]));
    }
    let mut escaped = false;
    let end = inner.bytes().position(|byte| match byte {
        _ if std::mem::take(&mut escaped) => false,
        b'\\' => {
            escaped = true;
            false
        }
        byte => byte == b'"',
    })?;
    let text = serde_json::from_str(&text[..end + 2]).ok()?;
    Some((Cow::Owned(text), &inner[end + 1..]))
}

/// The scalar that `text` starts with, and the rest.
fn scalar(text: &str) -> Option<(Scalar<'_>, &str)> {
    if text.starts_with('"') {
        let (string, after) = string(text)?;
        return Some((Scalar::Text(string), after));
    }
    let (word, after) = text.split_at(text.find([',', '}'])?);
    let value = match word {
        "null" => Scalar::Null,
        "true" => Scalar::Boolean(true),
        "false" => Scalar::Boolean(false),
        number => {
            // Rust also parses numbers that JSON lacks: inf, nan, +1, .5
            let is_number = number.bytes().all(|byte| b"0123456789+-.eE".contains(&byte))
                && number.trim_start_matches('-').starts_with(|first: char| first.is_ascii_digit());
            match number.parse() {
                _ if !is_number => return None,
                Ok(integer) => Scalar::Integer(integer),
                Err(_) => Scalar::Number(number.parse().ok()?),
            }
        }
    };
    Some((value, after))
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Vec::with_capacity(8);
        while let Some((Name(name), value)) = map.next_entry()? {
            members.push((name, value));
        }
        Ok(Members(members))
    }
}

/// A member's name, borrowed unless it has escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn object_is_read_with_and_without_spaces() {
        for text in [
            r#"{"a":1,"b":-2.5e3,"c":null,"d":true,"e":"x","\"f\\":"\u00e9\n"}"#,
            r#" { "a" : 1, "b" : -2.5e3, "c" : null, "d" : true, "e" : "x", "\"f\\": "é\n" } "#,
        ] {
            let members = Members::of(text);
            let text = |text: &'static str| Scalar::Text(text.into());
            let expected = [
                ("a", Scalar::Integer(1)),
                ("b", Scalar::Number(-2500.0)),
                ("c", Scalar::Null),
                ("d", Scalar::Boolean(true)),
                ("e", text("x")),
                ("\"f\\", text("é\n")),
            ];
            assert_eq!(members.0, expected.map(|(name, value)| (name.into(), value)));
        }
        assert_eq!(Members::of(r#"{"a":[1,{}],"b":1}"#).get("a"), Some(&Scalar::Nested));
        for text in ["", "{", "[]", "7", r#"{"a":+1}"#, r#"{"a":inf}"#, r#"{"a":1"#, r#"{"a":.5}"#]
        {
            assert_eq!(Members::of(text), Members::default(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_handled(text in r#"[{}\[\]",:0-9a-e.\\ é-]{0,40}"#) {
            let _ = Members::of(&text);
        }

        #[test]
        fn fast_parser_agrees_with_serde_json(
            members in prop::collection::vec((".{0,8}", any::<i64>(), ".{0,8}"), 0..5),
        ) {
            let mut text = Vec::new();
            for (name, number, value) in &members {
                text.extend(serde_json::to_string(name).map(|name| format!("{name}:{number}")));
                let value = serde_json::to_string(value);
                text.extend(value.map(|value| format!(r#""x":{value}"#)));
            }
            let text = format!("{{{}}}", text.join(","));
            let expected: Members<'_> = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(flat(&text).map(Members), Some(expected));
        }
    }
}
