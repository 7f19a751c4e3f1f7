//! Expected output: `…` stands for anything within a line and, alone on a line, for any number of
//! lines.

/// Whether `lines` match `patterns`.
pub(super) fn matches(patterns: &[&str], lines: &[&str]) -> bool {
    match (patterns.split_first(), lines.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((&"…", patterns)), _) => {
            (0..=lines.len()).any(|skipped| matches(patterns, &lines[skipped..]))
        }
        (Some((pattern, patterns)), Some((line, lines))) => {
            line_matches(pattern, line) && matches(patterns, lines)
        }
        (Some(_), None) => false,
    }
}

fn line_matches(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

#[test]
fn ellipsis_matches_within_a_line_and_across_lines() {
    for (pattern, line, expected) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("a…", "ab", true),
        ("…b", "ab", true),
        ("a…c…e", "abcde", true),
        ("a…c…e", "abde", false),
        ("…", "", true),
    ] {
        assert_eq!(line_matches(pattern, line), expected, "{pattern} {line}");
    }
    assert!(matches(&["a", "…", "z"], &["a", "b", "c", "z"]));
    assert!(!matches(&["a", "z"], &["a", "b", "z"]));
}
