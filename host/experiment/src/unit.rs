//! Units: the value of a request that is assigned to a variant, as a user's id.

use std::fmt;
use std::time::Duration;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Where the unit is in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The value of a header, by its lower-case name.
    Header(String),
    /// The value of a cookie.
    Cookie(String),
    /// A cookie that the router sets where there is none.
    AssignedCookie(AssignedCookie),
    /// A field of the JSON body: names of members or indices of elements, from the outside in.
    Json(Vec<String>),
}

/// A cookie with a random id that the router assigns, and signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignedCookie {
    pub name: String,
    /// The attribute `Max-Age`: the cookie's lifetime from its assignment on.
    pub max_age: Duration,
    /// Whether it has the attribute `Secure`. `None`: if the request came over TLS.
    pub secure: Option<bool>,
}

/// Maximum lifetime of an assigned cookie, and the default. Browsers keep no cookie for longer
/// (RFC 6265bis, 5.5).
pub const MAX_COOKIE_AGE: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// Name of the header with cookies.
pub const COOKIE: &str = "cookie";

impl Unit {
    /// The header with the unit, if it is in one.
    #[must_use]
    pub fn header(&self) -> Option<&str> {
        match self {
            Self::Header(name) => Some(name),
            Self::Cookie(_) | Self::AssignedCookie(_) => Some(COOKIE),
            Self::Json(_) => None,
        }
    }

    /// The unit in a value of the [header](Self::header); `None` if it is empty. That of an assigned
    /// cookie is signed, and counts only if the signature is that of the router.
    #[must_use]
    pub fn in_header<'v>(&self, value: &'v [u8]) -> Option<&'v [u8]> {
        let unit = match self {
            Self::Header(_) => value.trim_ascii(),
            Self::Cookie(name) => cookie(value, name.as_bytes())?,
            Self::AssignedCookie(AssignedCookie { name, .. }) => cookie(value, name.as_bytes())?,
            Self::Json(_) => return None,
        };
        (!unit.is_empty()).then_some(unit)
    }
}

/// `header x-user-id`, `cookie uid`, `assigned cookie spinfer-unit`, `json user.id`
impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header {name}"),
            Self::Cookie(name) => write!(f, "cookie {name}"),
            Self::AssignedCookie(cookie) => write!(f, "assigned cookie {}", cookie.name),
            Self::Json(path) => write!(f, "json {}", path.join(".")),
        }
    }
}

/// The value of the cookie `name` without quotes (RFC 6265, 4.2.1).
fn cookie<'v>(header: &'v [u8], name: &[u8]) -> Option<&'v [u8]> {
    header.split(|byte| *byte == b';').find_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        (key == name).then_some(unquoted.unwrap_or(value))
    })
}

/// Reads the unit at `path` of a document: a string, or the digits of an integer; `None` if it is
/// neither or does not exist. The rest of the document is skipped and not stored.
///
/// # Errors
/// If the document is malformed.
pub fn in_document<'de, D: Deserializer<'de>>(
    path: &[String],
    document: D,
) -> Result<Option<String>, D::Error> {
    At(path).deserialize(document)
}

/// The remaining path to a field.
#[derive(Clone, Copy)]
struct At<'p>(&'p [String]);

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<Self::Value, D::Error> {
        value.deserialize_any(self)
    }
}

impl At<'_> {
    /// A value at the end of the path.
    fn scalar(self, text: &impl ToString) -> Option<String> {
        self.0.is_empty().then(|| text.to_string()).filter(|text| !text.is_empty())
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.scalar(&text))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(self.scalar(&number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(self.scalar(&number))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_next) = map.next_key_seed(IsNext(self.0.first()))? {
            match self.0 {
                // The last of equal names counts, as in most JSON parsers.
                [_, rest @ ..] if is_next => found = map.next_value_seed(At(rest))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let wanted = self.0.first().and_then(|step| step.parse::<usize>().ok());
        let mut found = None;
        for index in 0_usize.. {
            match self.0 {
                [_, rest @ ..] if Some(index) == wanted => {
                    let Some(value) = elements.next_element_seed(At(rest))? else { break };
                    found = value;
                }
                _ if elements.next_element::<IgnoredAny>()?.is_none() => break,
                _ => {}
            }
        }
        Ok(found)
    }
}

/// Whether a key is the next step of the path.
struct IsNext<'p>(Option<&'p String>);

impl<'de> DeserializeSeed<'de> for IsNext<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<bool, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for IsNext<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<bool, E> {
        Ok(self.0.is_some_and(|step| step == name))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(path: &str, json: &str) -> Option<String> {
        let path: Vec<_> = path.split('.').map(str::to_owned).collect();
        in_document(&path, &mut serde_json::Deserializer::from_str(json)).ok().flatten()
    }

    #[test]
    fn a_field_is_found_by_its_path() {
        for (path, json, expected) in [
            ("id", r#"{"id": "ann"}"#, Some("ann")),
            (
                "user.id",
                r#"{"features": [1, {"id": 2}], "user": {"name": "a", "id": 7}}"#,
                Some("7"),
            ),
            ("user.id", r#"{"user": {"id": -7}}"#, Some("-7")),
            ("rows.1.id", r#"{"rows": [{"id": "a"}, {"id": "b"}, {"id": "c"}]}"#, Some("b")),
            ("0", r#"["a"]"#, Some("a")),
            ("id", r#"{"id": "a", "id": "b"}"#, Some("b")),
            ("a", r#"{"\u0061": "escaped"}"#, Some("escaped")),
            ("id", r#"{"id": ""}"#, None),
            ("id", r#"{"id": null}"#, None),
            ("id", r#"{"id": 1.5}"#, None),
            ("id", r#"{"id": true}"#, None),
            ("id", r#"{"id": {"id": "deeper"}}"#, None),
            ("id", r#"{"id": ["a"]}"#, None),
            ("user.id", r#"{"user": "ann"}"#, None),
            ("rows.9", r#"{"rows": ["a"]}"#, None),
            ("rows.x", r#"{"rows": ["a"]}"#, None),
            ("id", r#"{"id": "a", broken"#, None),
            ("id", "", None),
        ] {
            assert_eq!(field(path, json).as_deref(), expected, "{path} of {json}");
        }
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let unit = Unit::Cookie("uid".into());
        for (header, expected) in [
            ("uid=ann", Some("ann")),
            ("a=b; uid=ann; c=d", Some("ann")),
            ("xuid=no; uid=\"ann\"", Some("ann")),
            ("uid=a=b", Some("a=b")),
            ("uid=", None),
            ("uid", None),
            ("Uid=ann", None),
            ("", None),
        ] {
            let found = unit.in_header(header.as_bytes());
            assert_eq!(found, expected.map(str::as_bytes), "{header}");
        }
    }

    #[test]
    fn a_header_with_a_value_is_a_unit() {
        let unit = Unit::Header("x-user-id".into());
        assert_eq!(unit.in_header(b" ann "), Some(&b"ann"[..]));
        assert_eq!(unit.in_header(b"  "), None);
        assert_eq!(unit.in_header(&[0xff]), Some(&[0xff][..]), "not UTF-8");
    }

    proptest! {
        #[test]
        fn bodies_and_cookies_never_panic(text in ".{0,200}", path in "[a-z0-9.]{1,10}") {
            let _ = field(&path, &text);
            let _ = cookie(text.as_bytes(), path.as_bytes());
        }
    }
}
