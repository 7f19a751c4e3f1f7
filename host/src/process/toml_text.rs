//! Parses TOML. Errors quote at most the part of a line around the problem, as a file can have lines of
//! any length.

use std::fmt::Write as _;

use anyhow::{Result, anyhow};
use serde::de::DeserializeOwned;

/// Maximum length of a line that an error quotes as a whole, in bytes.
const MAX_LINE: usize = 200;
/// Bytes of a longer line that are quoted on each side of the error.
const AROUND: usize = 40;
/// Maximum length of a description, in bytes: it lists keys, and can contain a value of the file.
const MAX_MESSAGE: usize = 1000;

/// Parses `text`.
///
/// # Errors
/// Names the line, the column and the problem.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| anyhow!(describe(&error, text)))
}

fn describe(error: &toml::de::Error, text: &str) -> String {
    let message = error.message();
    let start = error.span().map(|span| text.floor_char_boundary(span.start));
    let line_start = start.map_or(0, |start| text[..start].rfind('\n').map_or(0, |at| at + 1));
    let line = start.map_or("", |_| text[line_start..].lines().next().unwrap_or_default());
    if line.len() <= MAX_LINE && message.len() <= MAX_MESSAGE {
        return error.to_string();
    }
    let mut out = String::from("TOML parse error");
    if let Some(start) = start {
        let number = text[..start].matches('\n').count() + 1;
        let column = text[line_start..start].chars().count() + 1;
        let excerpt = excerpt(line, start - line_start);
        let _ = write!(out, " at line {number}, column {column}: {excerpt}");
    }
    let shown = &message[..message.floor_char_boundary(MAX_MESSAGE)];
    let more = if shown.len() < message.len() { "..." } else { "" };
    let _ = writeln!(out, "\n{shown}{more}");
    out
}

/// The part of `line` around the byte `at`, which may be that of its end.
fn excerpt(line: &str, at: usize) -> String {
    let from = line.floor_char_boundary(at.saturating_sub(AROUND).min(line.len()));
    let to = line.floor_char_boundary((at + AROUND).min(line.len()));
    let left = if from > 0 { "..." } else { "" };
    let right = if to < line.len() { "..." } else { "" };
    format!("{left}{}{right}", &line[from..to])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use toml::Table;

    use super::*;

    #[test]
    fn error_in_a_short_line_quotes_it() {
        let error = parse::<Table>("a = 1\nb = ").unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("b = "), "{error}");
    }

    #[test]
    fn error_in_a_huge_line_quotes_the_part_around_it() {
        let filler = "x".repeat(1 << 20);
        for (text, parts) in [
            (format!("a = 1\nb = '{filler}' c"), &["line 2, column 1048", "xxx' c"][..]),
            (format!("b = @ # {filler}"), &["line 1, column 5", "b = @ # xx", "..."]),
        ] {
            let error = parse::<Table>(&text).unwrap_err().to_string();
            assert!(error.len() < 600, "{} bytes", error.len());
            for part in parts {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
    }

    #[test]
    fn huge_value_in_a_description_is_cut() {
        #[derive(Debug, serde::Deserialize)]
        #[expect(dead_code, reason = "only its error matters")]
        struct Numbers {
            a: u8,
        }
        let text = format!("a = '{}'", "y".repeat(1 << 20));
        let error = parse::<Numbers>(&text).unwrap_err().to_string();
        assert!(error.len() < 1200 && error.contains("invalid type: string"), "{error}");
    }

    proptest! {
        #[test]
        fn error_is_short_for_any_text(text in "[a-z=\"' \n\u{e9}]{0,40}", filler in 0_usize..2000) {
            let text = format!("{text}{}{text}", "\u{e9}".repeat(filler));
            if let Err(error) = parse::<Table>(&text) {
                prop_assert!(error.to_string().len() < 8 * MAX_LINE);
            }
        }
    }
}
