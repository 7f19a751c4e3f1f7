//! The cookie with an assigned unit: a random id, signed with HMAC-SHA-256, so that a client can
//! neither choose its unit nor take another's without its cookie.
//!
//! `<id>.<signature>`: 32 hexadecimal digits each. The signature is of the cookie's name and the id,
//! the first 16 bytes of the code (RFC 2104, 5: at least half of its length).

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::unit::AssignedCookie;

/// Length of an id, in bytes.
pub const ID_BYTES: usize = 16;
/// Length of a signature, in bytes.
const SIGNATURE_BYTES: usize = 16;
/// Minimum length of a key, in bytes.
pub const MIN_KEY: usize = 16;

/// Signs and checks assigned units with a secret key, which all nodes share.
#[derive(Clone)]
pub struct CookieKey(Hmac<Sha256>);

impl std::fmt::Debug for CookieKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CookieKey").finish_non_exhaustive()
    }
}

impl CookieKey {
    /// # Errors
    /// If the key is shorter than [`MIN_KEY`].
    pub fn new(key: &[u8]) -> Result<Self, String> {
        if key.len() < MIN_KEY {
            return Err(format!(
                "a key of {} bytes is too short to sign with; write one of at least {MIN_KEY}, such \
                 as the output of `openssl rand -hex 32`",
                key.len()
            ));
        }
        Hmac::new_from_slice(key).map(Self).map_err(|error| error.to_string())
    }

    /// The unit in the value of the cookie `name`: its id. `None` if it is not signed with this key.
    #[must_use]
    pub fn unit<'v>(&self, name: &str, value: &'v [u8]) -> Option<&'v [u8]> {
        let (id, signature) = value.split_at_checked(2 * ID_BYTES)?;
        let signature = decode(signature.strip_prefix(b".")?)?;
        // Upper-case digits would be another unit with the same signature.
        let is_id = id.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let code = self.code(name, id);
        (is_id && code.verify_truncated_left(&signature).is_ok()).then_some(id)
    }

    /// The value of the cookie `name` for a random `id`.
    #[must_use]
    pub fn value(&self, name: &str, id: &[u8; ID_BYTES]) -> String {
        let id = encode(id);
        let code = self.code(name, id.as_bytes()).finalize().into_bytes();
        format!("{id}.{}", encode(&code[..SIGNATURE_BYTES]))
    }

    /// No cookie's name contains a NUL.
    fn code(&self, name: &str, id: &[u8]) -> Hmac<Sha256> {
        self.0.clone().chain_update(name).chain_update([0]).chain_update(id)
    }
}

/// The `Set-Cookie` that assigns `value`. `tls`: whether the request came over TLS.
#[must_use]
pub fn set_cookie(cookie: &AssignedCookie, value: &str, tls: bool) -> String {
    let AssignedCookie { name, max_age, secure } = cookie;
    let secure = if secure.unwrap_or(tls) { "; Secure" } else { "" };
    let max_age = max_age.as_secs();
    format!("{name}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}")
}

fn encode(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // A String takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes of a signature's hexadecimal digits, in lower case.
fn decode(digits: &[u8]) -> Option<[u8; SIGNATURE_BYTES]> {
    let mut bytes = [0; SIGNATURE_BYTES];
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != bytes.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const KEY: &[u8] = b"0123456789abcdef";
    const ID: [u8; ID_BYTES] = [7; ID_BYTES];

    fn key() -> CookieKey {
        CookieKey::new(KEY).unwrap()
    }

    /// Computed by Python's hmac module: other nodes and versions have to accept the cookie.
    #[test]
    fn signature_is_hmac_sha_256() {
        let value = key().value("spinfer-unit", &ID);
        assert_eq!(value, PINNED);
        assert_eq!(key().unit("spinfer-unit", PINNED.as_bytes()), Some(&PINNED.as_bytes()[..32]));
    }

    const PINNED: &str = "07070707070707070707070707070707.c5d1a39b3cd32f8356b0f2d795d38287";

    #[test]
    fn forged_or_altered_cookie_has_no_unit() {
        let value = key().value("unit", &ID);
        let other = CookieKey::new(b"0123456789abcdeF").unwrap();
        assert_eq!(other.unit("unit", value.as_bytes()), None, "another key");
        assert_eq!(key().unit("other", value.as_bytes()), None, "another cookie");
        for index in 0..value.len() {
            let mut altered = value.clone().into_bytes();
            altered[index] ^= 1;
            assert_eq!(key().unit("unit", &altered), None, "{index}");
        }
        let upper = value.to_uppercase();
        let mut longer = value.clone();
        longer.push('0');
        for altered in ["", ".", "ann", &value[..32], &value[..33], &value[..64], &upper, &longer] {
            assert_eq!(key().unit("unit", altered.as_bytes()), None, "{altered}");
        }
    }

    #[test]
    fn short_key_is_refused() {
        let problem = CookieKey::new(b"secret").unwrap_err();
        assert!(problem.starts_with("a key of 6 bytes is too short"), "{problem}");
    }

    #[test]
    fn cookie_is_secure_over_tls_or_as_set() {
        let max_age = Duration::from_secs(60);
        let cookie = |secure, tls| {
            set_cookie(&AssignedCookie { name: "unit".into(), max_age, secure }, "v", tls)
        };
        let plain = "unit=v; Path=/; Max-Age=60; HttpOnly; SameSite=Lax";
        for (secure, tls, is_secure) in [
            (None, false, false),
            (None, true, true),
            (Some(true), false, true),
            (Some(false), true, false),
        ] {
            let suffix = if is_secure { "; Secure" } else { "" };
            assert_eq!(cookie(secure, tls), format!("{plain}{suffix}"));
        }
    }

    proptest! {
        #[test]
        fn any_id_is_read_back(id in any::<[u8; ID_BYTES]>(), name in "[a-z-]{1,12}") {
            let value = key().value(&name, &id);
            let id = encode(&id);
            prop_assert_eq!(key().unit(&name, value.as_bytes()), Some(id.as_bytes()));
        }

        #[test]
        fn any_value_is_read_or_refused(value in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(key().unit("unit", &value), None);
        }
    }
}
