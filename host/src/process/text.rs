//! Untrusted text in messages.

use std::borrow::Cow;

/// Maximum length of a line of a message, in bytes.
const MAX_LINE: usize = 4000;

/// The first bytes of a text from a guest, for a message: the whole may have any length.
pub(crate) fn shortened(name: &str) -> &str {
    const MAX_BYTES: usize = 100;
    if name.len() <= MAX_BYTES { name } else { &name[..name.floor_char_boundary(MAX_BYTES)] }
}

/// A message whose lines have at most [`MAX_LINE`] bytes: a line can quote a value of any length. Of a
/// longer line the middle is left out, as the end contains the remedy.
pub(crate) fn cut_lines(message: &str) -> Cow<'_, str> {
    if message.lines().all(|line| line.len() <= MAX_LINE) {
        return message.into();
    }
    let lines: Vec<_> = message
        .lines()
        .map(|line| {
            if line.len() <= MAX_LINE {
                return Cow::from(line);
            }
            let start = &line[..line.floor_char_boundary(MAX_LINE / 4)];
            let end = &line[line.ceil_char_boundary(line.len() - MAX_LINE / 4)..];
            format!("{start} ... ({} bytes) ... {end}", line.len()).into()
        })
        .collect();
    lines.join("\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn middle_of_a_long_line_is_left_out() {
        let long = format!("first\nspin.toml: \"{}\" is wrong; write y", "\u{e9}".repeat(1 << 20));
        let cut = cut_lines(&long);
        assert!(cut.len() < 3000, "{} bytes", cut.len());
        assert!(cut.starts_with("first\nspin.toml: "), "{cut}");
        assert!(cut.ends_with("is wrong; write y") && cut.contains(" bytes) "), "{cut}");
        assert_eq!(cut_lines("a\nb"), "a\nb");
    }
}
