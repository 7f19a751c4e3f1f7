//! `Accept-Encoding` (RFC 9110, 12.5.3), for the supported codings.

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

use super::Coding;

/// The weight of each coding in thousandths; `None` if it is not listed. The default lists none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcceptEncoding {
    gzip: Option<u16>,
    deflate: Option<u16>,
    identity: Option<u16>,
    /// `*`: all codings that are not listed.
    any: Option<u16>,
}

impl AcceptEncoding {
    /// Parses the headers of a request. Invalid elements are ignored.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut accepted = Self::default();
        let values =
            headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        for element in values.flat_map(|value| value.split(',')) {
            let (name, weight) = element.split_once(';').unwrap_or((element, "q=1"));
            let Some(weight) = quality(weight) else { continue };
            let name = name.trim();
            let accepted_weight = match Coding::named(name) {
                Some(Coding::Gzip) => &mut accepted.gzip,
                Some(Coding::Deflate) => &mut accepted.deflate,
                None if name.eq_ignore_ascii_case("identity") => &mut accepted.identity,
                None if name == "*" => &mut accepted.any,
                None => continue,
            };
            *accepted_weight = Some(weight.max(accepted_weight.unwrap_or_default()));
        }
        accepted
    }

    /// The coding with the highest weight, unless `identity` has a higher one. Of equal weights gzip, which
    /// all clients decode in the same way.
    #[must_use]
    pub fn choose(&self) -> Option<Coding> {
        let of = |named: Option<u16>| named.or(self.any).unwrap_or_default();
        let (gzip, deflate) = (of(self.gzip), of(self.deflate));
        let (coding, weight) =
            if gzip >= deflate { (Coding::Gzip, gzip) } else { (Coding::Deflate, deflate) };
        // `identity` is acceptable by default, but takes precedence only if it is listed.
        (weight > 0 && weight >= self.identity.unwrap_or_default()).then_some(coding)
    }

    /// Whether the client refuses bodies without a coding.
    #[must_use]
    pub fn refuses_identity(&self) -> bool {
        self.identity.or(self.any) == Some(0)
    }
}

/// Parses a weight such as `q=0.5` as thousandths.
fn quality(text: &str) -> Option<u16> {
    let (name, value) = text.split_once('=')?;
    let value = value.trim();
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let is_fraction = fraction.len() <= 3 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    if !name.trim().eq_ignore_ascii_case("q") || !is_fraction {
        return None;
    }
    let thousandths: u16 = format!("{fraction:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[&str]) -> AcceptEncoding {
        let headers = values.iter().map(|v| (ACCEPT_ENCODING, HeaderValue::from_str(v).unwrap()));
        AcceptEncoding::of(&headers.collect())
    }

    #[test]
    fn coding_with_the_highest_weight_is_chosen() {
        let (gzip, deflate) = (Some(Coding::Gzip), Some(Coding::Deflate));
        for (values, chosen) in [
            (&[][..], None),
            (&[""], None),
            (&["gzip"], gzip),
            (&["GZip"], gzip),
            (&["x-gzip"], gzip),
            (&["deflate"], deflate),
            (&["gzip, deflate, br, zstd"], gzip),
            (&["deflate, gzip"], gzip),
            (&["br", "gzip;q=0.5"], gzip),
            (&["gzip;q=0.5, deflate;q=0.6"], deflate),
            (&["gzip ; Q=0.5,deflate"], deflate),
            (&["gzip;q=0"], None),
            (&["gzip;q=0.000, deflate;q=0"], None),
            (&["*"], gzip),
            (&["*;q=0.1"], gzip),
            (&["gzip;q=0, *"], deflate),
            (&["*;q=0"], None),
            (&["br, *;q=0"], None),
            (&["identity"], None),
            (&["identity, gzip;q=0.9"], None),
            (&["identity;q=0.5, gzip;q=0.9"], gzip),
            (&["identity, gzip"], gzip),
            (&["gzip;q=0.0001"], None),
            (&["gzip;q=2"], None),
            (&["gzip;q=1.001"], None),
            (&["gzip;level=1"], None),
            (&["gzip;q"], None),
            (&["br"], None),
        ] {
            assert_eq!(of(values).choose(), chosen, "{values:?}");
        }
    }

    #[test]
    fn identity_can_be_refused() {
        for (value, refuses) in [
            ("identity;q=0, gzip", true),
            ("gzip, *;q=0", true),
            ("gzip, *;q=0, identity", false),
            ("gzip", false),
            ("*", false),
        ] {
            assert_eq!(of(&[value]).refuses_identity(), refuses, "{value}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_headers_are_parsed(value in "[ -~]{0,60}", list in "((gzip|deflate|\\*|identity)(;q=[01](\\.[0-9]{0,4})?)?,? ?){0,6}") {
            for value in [value, list] {
                let accepted = of(&[&value]);
                if accepted.choose().is_some() {
                    prop_assert!(value.contains('*') || value.to_ascii_lowercase().contains("gzip")
                        || value.to_ascii_lowercase().contains("deflate"));
                }
            }
        }
    }
}
