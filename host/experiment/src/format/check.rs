//! Checks of names, shares and paths.

use super::{MAX_NAME, SUM_TOLERANCE};

/// Checks a share of the units.
pub(crate) fn check_allocation(share: f64) -> Result<f64, String> {
    if (0.0..=1.0).contains(&share) {
        // -0 becomes 0.
        Ok(share.abs())
    } else {
        Err(format!("{share} is not a share; write one from 0 to 1"))
    }
}

/// Checks that shares sum to 1.
pub(crate) fn check_sum(shares: impl Iterator<Item = f64>) -> Result<(), String> {
    let shares: Vec<_> = shares.collect();
    let sum: f64 = shares.iter().sum();
    if (sum - 1.0).abs() <= SUM_TOLERANCE {
        return Ok(());
    }
    // With the digits that are compared.
    let sum = format!("{sum:.9}");
    let sum = sum.trim_end_matches('0').trim_end_matches('.');
    let terms: Vec<_> = shares.iter().map(ToString::to_string).collect();
    Err(format!("the allocations {} sum to {sum}; they have to sum to 1", terms.join(" + ")))
}

/// Checks the name of an experiment, a variant or a model.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let problem = match (name.chars().next(), name.chars().find(|c| !allowed(*c))) {
        (None, _) => "is empty".to_owned(),
        _ if name.len() > MAX_NAME => format!("has {} bytes", name.len()),
        (_, Some(other)) => format!("contains {other:?}"),
        (Some(first), None) if !first.is_ascii_alphanumeric() => format!("starts with {first:?}"),
        (Some(_), None) => return Ok(()),
    };
    Err(format!(
        "\"{}\" {problem}; a name has at most {MAX_NAME} letters, digits, `-`, `_` and `.`, and \
         starts with a letter or a digit",
        name.escape_debug()
    ))
}

pub(super) fn check_component(id: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == ':';
    if !id.is_empty() && id.chars().all(fits) {
        return Ok(());
    }
    Err(format!(
        "\"{}\" is not the id of a component, as in [component.iris-classifier-1]",
        id.escape_debug()
    ))
}

/// Checks an HTTP token (RFC 9110, 5.6.2).
pub(super) fn check_token(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if !name.is_empty() && name.chars().all(fits) {
        return Ok(());
    }
    Err(format!("\"{}\" is not the name of a header or a cookie", name.escape_debug()))
}

pub(super) fn check_header(name: &str) -> Result<(), String> {
    check_token(name)?;
    // The host sets these headers on every request or response.
    let reserved = ["spin-", "spinfer-"]
        .iter()
        .any(|own| name.get(..own.len()).is_some_and(|start| start.eq_ignore_ascii_case(own)));
    if reserved {
        Err(format!("\"{name}\" is a header of the host; choose another"))
    } else {
        Ok(())
    }
}

pub(super) fn check_path(path: &str) -> Result<(), String> {
    if path.split('.').all(|step| !step.is_empty()) {
        return Ok(());
    }
    Err(format!(
        "\"{}\" is not a path to a field: \"user.id\", or \"rows.0.id\" within an array",
        path.escape_debug()
    ))
}
