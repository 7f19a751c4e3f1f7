//! The unit of a request: in the place that its experiment names, or in a cookie that this router assigns.

use spin_sdk::wasip3::random::random::get_random_u64;
use spinfer_experiment::cookie::{CookieKey, ID_BYTES, set_cookie};
use spinfer_experiment::unit::{self, AssignedCookie};
use spinfer_experiment::{Experiments, Unit};

use crate::bindings::fermyon::spin::variables;

/// Component variable with the key that assigned cookies are signed with. All nodes have the same.
const KEY: &str = "cookie_key";

/// The unit of a request, and the cookie that assigns it, if it is a new one.
pub(crate) struct FoundUnit {
    pub(crate) unit: Option<Vec<u8>>,
    pub(crate) set_cookie: Option<String>,
}

impl FoundUnit {
    /// The unit of a request that has one.
    fn of(unit: Option<Vec<u8>>) -> Self {
        Self { unit, set_cookie: None }
    }
}

/// The key of assigned cookies, if an experiment has such a cookie.
///
/// # Errors
/// If there is no such variable, or its value is too short.
pub(crate) fn cookie_key(experiments: &Experiments) -> Result<Option<CookieKey>, String> {
    let assigns = |unit: &Unit| matches!(unit, Unit::AssignedCookie(_));
    if !experiments.iter().any(|experiment| assigns(&experiment.unit)) {
        return Ok(None);
    }
    let key = variables::get(KEY).map_err(|_| {
        format!(
            "`unit.assigned_cookie` needs a key to sign with; write {KEY} = \"{{{{ cookie_key }}}}\" in \
             the variables of the component, with the same value on all nodes"
        )
    })?;
    let key = CookieKey::new(key.as_bytes());
    key.map(Some).map_err(|problem| format!("the variable `{KEY}`: {problem}"))
}

/// The unit in the values of a header, or in `body`.
pub(crate) fn find<'v>(
    unit: &Unit,
    values: impl Iterator<Item = &'v [u8]>,
    body: &[u8],
) -> FoundUnit {
    let found = match unit {
        Unit::Json(path) => {
            let document = &mut serde_json::Deserializer::from_slice(body);
            // A body that is not JSON has no unit; the variant refuses it.
            unit::in_document(path, document).ok().flatten().map(String::into_bytes)
        }
        unit => values.into_iter().find_map(|value| unit.in_header(value)).map(<[u8]>::to_vec),
    };
    FoundUnit::of(found)
}

/// The unit in a `cookie` that is signed with `key` and among the `values` of cookies, or else a new one
/// with an id from `random`. `tls`: whether the request came over TLS.
pub(crate) fn assigned<'v>(
    cookie: &AssignedCookie,
    key: &CookieKey,
    values: impl Iterator<Item = &'v [u8]>,
    tls: bool,
    random: impl FnOnce() -> [u8; ID_BYTES],
) -> FoundUnit {
    let name = &cookie.name;
    let here = Unit::AssignedCookie(cookie.clone());
    let mut signed =
        values.filter_map(|value| here.in_header(value)).filter_map(|value| key.unit(name, value));
    if let Some(unit) = signed.next() {
        return FoundUnit::of(Some(unit.to_vec()));
    }
    let value = key.value(name, &random());
    let unit = key.unit(name, value.as_bytes()).map(<[u8]>::to_vec);
    FoundUnit { unit, set_cookie: Some(set_cookie(cookie, &value, tls)) }
}

/// A random id, of the host's secure generator.
pub(crate) fn random_id() -> [u8; ID_BYTES] {
    let [high, low] = [get_random_u64(), get_random_u64()].map(u64::to_be_bytes);
    let mut id = [0; ID_BYTES];
    let (first, second) = id.split_at_mut(ID_BYTES / 2);
    first.copy_from_slice(&high);
    second.copy_from_slice(&low);
    id
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn cookie_is_assigned_once_and_replaced_if_forged() {
        let key = CookieKey::new(b"0123456789abcdef").unwrap();
        let max_age = Duration::from_secs(3600);
        let cookie = AssignedCookie { name: "unit".into(), max_age, secure: None };
        let find = |values: &[&str], id: u8| {
            let values = values.iter().map(|value| value.as_bytes());
            assigned(&cookie, &key, values, true, || [id; ID_BYTES])
        };
        let first = find(&["a=b"], 7);
        let set = first.set_cookie.unwrap();
        let pair = set.split(';').next().unwrap().to_owned();
        assert_eq!(set, format!("{pair}; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax; Secure"));
        let sent = format!("a=b; {pair}");
        for values in [&[sent.as_str()][..], &["a=b", &pair], &["unit=forged", &pair]] {
            let again = find(values, 8);
            assert_eq!((&again.unit, again.set_cookie), (&first.unit, None), "{values:?}");
        }
        let forged = pair.replace("07070707", "08070707");
        let replaced = find(&[&forged], 8);
        assert!(replaced.set_cookie.is_some());
        assert_eq!(replaced.unit.unwrap(), "08".repeat(ID_BYTES).into_bytes());
    }
}
