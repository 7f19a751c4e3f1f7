//! Decodes and encodes JSON bodies. Nothing is parsed into a tree: numbers stay text until their datatype
//! is known (`json_array`).

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::Error;
use crate::reserve::out_of_memory;

/// A `T` from an object. A derived decoder alone would also accept an array of its fields.
pub(crate) struct Object<T>(pub(crate) T);

/// Decodes a body.
pub(crate) fn decode<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Error> {
    let Object(decoded) = serde_json::from_slice(body).map_err(|error| body_error(&error, body))?;
    Ok(decoded)
}

#[cold]
fn body_error(error: &serde_json::Error, body: &[u8]) -> Error {
    let hint = if !error.is_syntax() {
        ""
    } else if is_at_nan(error, body) {
        "; write null for a missing value, or NaN, Infinity or -Infinity as Python's json does"
    } else if is_quoted_for_another_shell(body) {
        "; the shell changed the quotes (cmd.exe and PowerShell do): send the body from a file, \
         with `curl -d @body.json`"
    } else {
        ""
    };
    Error::invalid_json(format!("the body: {error}{hint}"))
}

/// Whether the body looks like `'{"a": 1}'` (single quotes that cmd.exe passes on) or `{a: 1}` (double
/// quotes that PowerShell removes).
fn is_quoted_for_another_shell(body: &[u8]) -> bool {
    let body = body.trim_ascii();
    match body.strip_prefix(b"{") {
        Some(inner) => inner.trim_ascii_start().first().is_some_and(u8::is_ascii_alphabetic),
        None => body.starts_with(b"'"),
    }
}

/// Whether the parser stopped at another spelling of NaN or infinity.
fn is_at_nan(error: &serde_json::Error, body: &[u8]) -> bool {
    let Some(line) = body.split(|&byte| byte == b'\n').nth(error.line().saturating_sub(1)) else {
        return false;
    };
    let is_word = |byte: &u8| byte.is_ascii_alphabetic() || matches!(byte, b'+' | b'-');
    let column = error.column().min(line.len());
    let start = line[..column].iter().rposition(|byte| !is_word(byte)).map_or(0, |last| last + 1);
    let word = &line[start..];
    let word = &word[..word.iter().position(|byte| !is_word(byte)).unwrap_or(word.len())];
    let word = word.strip_prefix(b"+").or(word.strip_prefix(b"-")).unwrap_or(word);
    [&b"nan"[..], b"inf", b"infinity"].iter().any(|nan| word.eq_ignore_ascii_case(nan))
}

/// Infinity as [`respelled`] writes it, which Python's json module reads as infinity as well.
pub(crate) const INFINITY: &str = "1e+99999";
/// Its exponent.
pub(crate) const INFINITY_EXPONENT: i64 = 99_999;
/// Negative infinity as [`respelled`] writes it.
pub(crate) const NEGATIVE_INFINITY: &str = "-1e+99999";

/// The body with the tokens that Python's json module writes beyond JSON replaced: `NaN` by null,
/// infinities by [`INFINITY`] and [`NEGATIVE_INFINITY`]. `None` if there are none.
#[cold]
pub(crate) fn respelled(body: &[u8]) -> Option<Vec<u8>> {
    const TOKENS: [(&[u8], &str); 3] =
        [(b"NaN", "null"), (b"-Infinity", NEGATIVE_INFINITY), (b"Infinity", INFINITY)];
    let mut respelled = Vec::new();
    let (mut rest, mut copied) = (body, 0);
    let mut is_string = false;
    while let [first, tail @ ..] = rest {
        let at = body.len() - rest.len();
        rest = match first {
            b'"' => {
                is_string = !is_string;
                tail
            }
            b'\\' if is_string => tail.get(1..).unwrap_or_default(),
            b'N' | b'I' | b'-' if !is_string => {
                match TOKENS.iter().find(|(token, _)| rest.starts_with(token)) {
                    Some((token, json)) => {
                        let part = &body[copied..at];
                        respelled.try_reserve(part.len() + json.len()).ok()?;
                        respelled.extend_from_slice(part);
                        respelled.extend_from_slice(json.as_bytes());
                        copied = at + token.len();
                        &rest[token.len()..]
                    }
                    None => tail,
                }
            }
            _ => tail,
        };
    }
    if copied == 0 {
        return None;
    }
    respelled.try_reserve(body.len() - copied).ok()?;
    respelled.extend_from_slice(&body[copied..]);
    Some(respelled)
}

/// Decodes a JSON string. `None` if `json` is not a string of Unicode characters.
pub(crate) fn string(json: &str) -> Option<Cow<'_, str>> {
    let Key(string) = serde_json::from_slice(json.as_bytes()).ok()?;
    Some(string)
}

/// The items of an array in a body whose syntax was checked. `what`: its name in messages.
// Not inlined, for the size of components.
#[inline(never)]
pub(crate) fn items<'a>(
    what: &dyn fmt::Display,
    json: &'a RawValue,
) -> Result<Vec<&'a RawValue>, Error> {
    // From bytes: decoding from `str` would add a second decoder to every component.
    let JsonItems(items) = serde_json::from_slice(json.get().as_bytes())
        .map_err(|error| Error::invalid(format!("{what}: {error}")))?;
    items.ok_or_else(out_of_memory)
}

/// The items of an array. `None` if they do not fit into memory.
struct JsonItems<'a>(Option<Vec<&'a RawValue>>);

impl<'de: 'a, 'a> Deserialize<'de> for JsonItems<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ItemsVisitor;

        impl<'de> Visitor<'de> for ItemsVisitor {
            type Value = JsonItems<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Some(Vec::new());
                while let Some(item) = seq.next_element()? {
                    items = items.and_then(|mut items| {
                        items.try_reserve(1).ok()?;
                        items.push(item);
                        Some(items)
                    });
                }
                Ok(JsonItems(items))
            }
        }

        deserializer.deserialize_seq(ItemsVisitor)
    }
}

/// Appends `body` to `buffer`.
pub(crate) fn encode(mut buffer: Vec<u8>, body: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_writer(&mut buffer, body).map_err(|error| Error::internal(error.to_string()))?;
    Ok(buffer)
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

/// The entries of an object, in order.
pub(crate) struct Entries<'a>(pub(crate) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Entries<'a> {
    /// Decodes a body.
    pub(crate) fn of_body(body: &'a [u8]) -> Result<Self, Error> {
        Self::read(body).map_err(|error| body_error(&error, body))
    }

    /// Decodes an object in a body whose syntax was checked. `what`: its name in messages.
    pub(crate) fn of_part(what: &dyn fmt::Display, json: &'a RawValue) -> Result<Self, Error> {
        Self::read(json.get().as_bytes())
            .map_err(|error| Error::invalid(format!("{what}: {error}")))
    }

    // Not inlined, for the size of components.
    #[inline(never)]
    fn read(json: &'a [u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(json)
    }

    /// The values of the keys `names`; `null` counts as absent. Other keys are ignored. `what`: the object's
    /// name in messages.
    pub(crate) fn pick<const N: usize>(
        &self,
        what: &dyn fmt::Display,
        names: [&str; N],
    ) -> Result<[Option<&'a RawValue>; N], Error> {
        let mut picked = [None; N];
        self.pick_into(what, &names, &mut picked)?;
        Ok(picked)
    }

    #[inline(never)]
    fn pick_into(
        &self,
        what: &dyn fmt::Display,
        names: &[&str],
        picked: &mut [Option<&'a RawValue>],
    ) -> Result<(), Error> {
        for (name, value) in &self.0 {
            let Some(index) = names.iter().position(|wanted| wanted == name) else { continue };
            if picked[index].replace(value).is_some() {
                return Err(Error::invalid(format!("{what}: duplicate key {name:?}")));
            }
        }
        for value in picked {
            *value = value.filter(|value| value.get() != "null");
        }
        Ok(())
    }
}

/// A string: borrowed, unless it contains escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((Key(key), value)) = map.next_entry()? {
                    entries.push((key, value));
                }
                Ok(entries)
            }
        }

        deserializer.deserialize_map(EntriesVisitor).map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_python_become_json() {
        for (body, json) in [
            (r#"{"a":[NaN,-Infinity,Infinity]}"#, Some(r#"{"a":[null,-1e+99999,1e+99999]}"#)),
            (r#"["NaN",NaN,"\"NaN",  NaN ]"#, Some(r#"["NaN",null,"\"NaN",  null ]"#)),
            (r#"["NaN, -Infinity \\", -1]"#, None),
            ("[nan]", None),
            (r#"["\"#, None),
            ("", None),
        ] {
            let respelled = respelled(body.as_bytes());
            assert_eq!(respelled.as_deref(), json.map(str::as_bytes), "{body}");
        }
    }

    #[test]
    fn body_that_a_shell_has_changed_is_recognised() {
        let error =
            |body: &str| Entries::of_body(body.as_bytes()).map(drop).unwrap_err().to_string();
        for body in [r#"'{"a": [1]}'"#, "'{a:", " '", "{a: [1]}", "{ features: [nan"] {
            assert!(error(body).contains("curl -d @body.json"), "{body}: {}", error(body));
        }
        for body in ["", "[1]", r#"{"a" 1}"#, "{1: 2}", "{}x", "a"] {
            assert!(!error(body).contains("curl"), "{body}: {}", error(body));
        }
    }

    #[test]
    fn errors_at_nan_hint_at_its_spelling() {
        let error =
            |body: &str| Entries::of_body(body.as_bytes()).map(drop).unwrap_err().to_string();
        for body in [r#"{"a":[nan]}"#, r#"{"a":[1, -inf]}"#, "{\"a\":\n[inf]}", r#"{"a":INFINITY}"#]
        {
            assert!(error(body).ends_with("Python's json does"), "{body}: {}", error(body));
        }
        for body in ["{", "{} {}", r#"{"a":[1,]}"#, r#"{"a":nul}"#, "[1]", "", r#"{"nan" 1}"#] {
            assert!(!error(body).contains("NaN"), "{body}: {}", error(body));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_body_panics(body in r#"(NaN|-|Infinity|inf|"|\\|\n|\[|,|1|é){0,12}"#) {
            let _ = respelled(body.as_bytes());
            let _ = Entries::of_body(body.as_bytes());
        }

        #[test]
        fn strings_are_not_respelled(text in "(NaN|Infinity|\"|\\\\|a){0,9}") {
            proptest::prop_assert_eq!(respelled(&serde_json::to_vec(&text).unwrap()), None);
        }
    }
}
