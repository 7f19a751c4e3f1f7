//! Reads JSON arrays of numbers, strings, booleans or a mixture, flat or nested, item by item: without a
//! tree, and without recursion. Any item may be `null`; the callback decides whether to refuse it.

use std::fmt;

use serde_json::value::RawValue;

use crate::error::quoted;
use crate::json::{INFINITY, NEGATIVE_INFINITY};
use crate::shape::{MAX_RANK, Shape};

/// The kind of an array's items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ItemKind {
    Numbers,
    Strings,
    Bools,
    /// Any of them; the callback checks which.
    Mixed,
}

impl ItemKind {
    /// One item, for messages.
    fn one(self) -> &'static str {
        match self {
            Self::Numbers => "a number",
            Self::Strings => "a string",
            Self::Bools => "true or false",
            Self::Mixed => "a number, a string, true or false",
        }
    }

    /// Several items, for messages.
    pub(crate) fn many(self) -> &'static str {
        match self {
            Self::Numbers => "numbers",
            Self::Strings => "strings",
            Self::Bools => "true and false",
            Self::Mixed => "values",
        }
    }

    /// Whether an item of this kind, or `null`, starts with `byte`.
    fn starts(self, byte: u8) -> bool {
        match self {
            Self::Numbers => matches!(byte, b'-' | b'0'..=b'9' | b'n'),
            Self::Strings => matches!(byte, b'"' | b'n'),
            Self::Bools => matches!(byte, b't' | b'f' | b'n'),
            Self::Mixed => byte != b'{',
        }
    }
}

/// An item as the client wrote it, for messages.
pub(crate) fn shown(item: &str) -> &str {
    match item {
        INFINITY => "Infinity",
        NEGATIVE_INFINITY => "-Infinity",
        "" => "an empty cell",
        item => quoted(item),
    }
}

/// Calls `take` with the text of each item of the array `json`, and returns the number of items. The
/// array may be nested as in `shape`, or flat, whose length the caller checks. `what`: the array's name in
/// messages.
///
/// # Errors
/// If an item is of another kind, the nesting does not match `shape`, or `take` refuses an item.
pub(crate) fn read(
    what: &dyn fmt::Display,
    kind: ItemKind,
    json: &RawValue,
    shape: &[u32],
    mut take: impl FnMut(&str) -> Result<(), &'static str>,
) -> Result<usize, String> {
    let mut reader = ArrayReader::new(kind, shape);
    // The JSON decoder has checked the syntax, so commas and brackets need no checks.
    let mut rest = json.get();
    loop {
        let (token, tail) = next_token(rest);
        rest = tail;
        let taken = match token.as_bytes() {
            [] => return Ok(reader.items),
            [b'['] => reader.open(),
            [b']'] => reader.close(),
            [first, ..] if kind.starts(*first) => reader.item(token, &mut take),
            _ => Err(reader.unexpected(token)),
        };
        taken.map_err(|problem| format!("{what}{problem}"))?;
    }
}

/// Splits off a bracket, a string, or everything up to the next bracket or comma.
fn next_token(json: &str) -> (&str, &str) {
    let between = |byte: &u8| matches!(byte, b',' | b' ' | b'\n' | b'\r' | b'\t');
    let bytes = json.as_bytes();
    let start = bytes.iter().position(|byte| !between(byte)).unwrap_or(bytes.len());
    let json = &json[start..];
    let length = match json.as_bytes() {
        [b'[' | b']', ..] => 1,
        [b'"', string @ ..] => 1 + string_length(string),
        bytes => {
            let ends = |byte: &u8| between(byte) || matches!(byte, b'[' | b']');
            bytes.iter().position(ends).unwrap_or(bytes.len())
        }
    };
    json.split_at(length)
}

/// The length of a string from after its opening quote, with the closing one.
fn string_length(string: &[u8]) -> usize {
    let mut escaped = false;
    let end = string.iter().position(|&byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(string.len(), |end| end + 1)
}

/// The state of reading an array.
struct ArrayReader<'a> {
    kind: ItemKind,
    shape: &'a [u32],
    /// Determined by the first item of the outermost array.
    layout: Option<Layout>,
    /// Number of open arrays.
    depth: usize,
    /// Number of items of each open array, outermost first.
    lengths: [u32; MAX_RANK],
    /// Number of items passed to the callback.
    items: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    Flat,
    Nested,
}

impl<'a> ArrayReader<'a> {
    fn new(kind: ItemKind, shape: &'a [u32]) -> Self {
        Self { kind, shape, layout: None, depth: 0, lengths: [0; MAX_RANK], items: 0 }
    }

    fn open(&mut self) -> Result<(), String> {
        if self.depth > 0 {
            if self.depth >= self.shape.len().min(MAX_RANK) {
                return Err(self.unexpected("an array"));
            }
            self.count(Layout::Nested, "an array")?;
        }
        self.lengths[self.depth] = 0;
        self.depth += 1;
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        self.depth -= 1;
        let length = self.lengths[self.depth];
        if self.layout == Some(Layout::Nested) && length != self.shape[self.depth] {
            return Err(self.unexpected(&format!("an array of {length}")));
        }
        Ok(())
    }

    fn item(
        &mut self,
        token: &str,
        take: &mut impl FnMut(&str) -> Result<(), &'static str>,
    ) -> Result<(), String> {
        let layout = match self.depth {
            1 => Layout::Flat,
            depth if depth > 1 && depth == self.shape.len() => Layout::Nested,
            _ => return Err(self.unexpected(token)),
        };
        self.count(layout, token)?;
        take(token).map_err(|reason| format!("[{}]: {} {reason}", self.items, shown(token)))?;
        self.items += 1;
        Ok(())
    }

    /// Counts an item of the innermost array. All items must have the same layout.
    fn count(&mut self, layout: Layout, token: &str) -> Result<(), String> {
        if *self.layout.get_or_insert(layout) != layout {
            return Err(self.unexpected(token));
        }
        let length = &mut self.lengths[self.depth - 1];
        *length = length.saturating_add(1);
        Ok(())
    }

    fn unexpected(&self, token: &str) -> String {
        let Self { kind, shape, items: count, .. } = self;
        let token = shown(token);
        match (self.depth, self.layout) {
            (0, None) => format!(": expected an array of {}, got {token}", kind.many()),
            (_, Some(Layout::Nested)) => {
                let shape = Shape::of(shape);
                format!("[{count}]: expected arrays nested as in the shape {shape}, got {token}")
            }
            _ => format!("[{count}]: expected {}, got {token}", kind.one()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(json: &str, shape: &[u32]) -> Result<Vec<String>, String> {
        let json: &RawValue = serde_json::from_str(json).unwrap();
        let mut numbers = Vec::new();
        let count = read(&"data", ItemKind::Numbers, json, shape, |number| {
            numbers.push(number.to_owned());
            Ok(())
        })?;
        assert_eq!(count, numbers.len());
        Ok(numbers)
    }

    #[test]
    fn flat_and_nested_arrays() {
        for (json, shape) in [
            ("[1, -2.5, 3e2, 4]", &[4][..]),
            ("[1,-2.5,3e2,4]", &[2, 2]),
            ("[[1,-2.5] , [3e2,4]]", &[2, 2]),
            ("\n[[[1],\t[-2.5]],[[3e2],[4]]]\r\n", &[2, 2, 1]),
            ("[1,-2.5,3e2,4]", &[]),
        ] {
            assert_eq!(numbers(json, shape).unwrap(), ["1", "-2.5", "3e2", "4"], "{json}");
        }
        assert!(numbers("[]", &[2]).unwrap().is_empty());
    }

    #[test]
    fn other_values_are_refused_with_their_position() {
        for (json, shape, problem) in [
            ("5", &[1][..], "data: expected an array of numbers, got 5"),
            ("null", &[1], "data: expected an array of numbers, got null"),
            (r#""a""#, &[1], r#"data: expected an array of numbers, got "a""#),
            (r#"{"a":[1]}"#, &[1], r#"data: expected an array of numbers, got {"a":"#),
            (r#"[1,"2, [3\""]"#, &[2], r#"data[1]: expected a number, got "2, [3\"""#),
            ("[true]", &[1], "data[0]: expected a number, got true"),
            ("[1,[2]]", &[2], "data[1]: expected a number, got an array"),
            ("[[1]]", &[], "data[0]: expected a number, got an array"),
            ("[1,[2]]", &[1, 2], "data[1]: expected a number, got an array"),
            (
                "[[[1]]]",
                &[1, 1],
                "data[0]: expected arrays nested as in the shape [1, 1], got an array",
            ),
            ("[[1,2],3]", &[2, 2], "data[2]: expected arrays nested as in the shape [2, 2], got 3"),
            (
                "[[1,2],[3]]",
                &[2, 2],
                "data[3]: expected arrays nested as in the shape [2, 2], got an array of 1",
            ),
            (
                "[[1,2]]",
                &[2, 2],
                "data[2]: expected arrays nested as in the shape [2, 2], got an array of 1",
            ),
            (
                "[[],[]]",
                &[2, 2],
                "data[0]: expected arrays nested as in the shape [2, 2], got an array of 0",
            ),
            (
                "[[1]]",
                &[1, 1, 1],
                "data[0]: expected arrays nested as in the shape [1, 1, 1], got 1",
            ),
        ] {
            assert_eq!(numbers(json, shape).unwrap_err(), problem, "{json}");
        }
        let json: &RawValue = serde_json::from_str("[1,1e999]").unwrap();
        let refuse = |number: &str| if number == "1" { Ok(()) } else { Err("is too large") };
        assert_eq!(
            read(&"data", ItemKind::Numbers, json, &[2], refuse).unwrap_err(),
            "data[1]: 1e999 is too large"
        );
    }

    #[test]
    fn strings_and_booleans() {
        let items = |kind: ItemKind, json: &str| {
            let mut items = Vec::new();
            let json: &RawValue = serde_json::from_str(json).unwrap();
            read(&"data", kind, json, &[2, 2], |item| {
                items.push(item.to_owned());
                Ok(())
            })
            .map(|_| items)
        };
        let strings = [r#""a, \"]\\""#, r#""""#, r#""[[""#, r#""é""#];
        for json in [
            strings.join(" ,"),
            format!("[{0},{1}],[{2},{3}]", strings[0], strings[1], strings[2], strings[3]),
        ] {
            assert_eq!(items(ItemKind::Strings, &format!("[{json}]")).unwrap(), strings);
        }
        let refused = items(ItemKind::Strings, r#"["a", 1]"#).unwrap_err();
        assert_eq!(refused, "data[1]: expected a string, got 1");
        assert_eq!(items(ItemKind::Bools, "[true, false]").unwrap(), ["true", "false"]);
        let refused = items(ItemKind::Bools, r#"["true"]"#).unwrap_err();
        assert_eq!(refused, r#"data[0]: expected true or false, got "true""#);
        let mixed = [r#""a""#, "1", "true", "null"];
        assert_eq!(items(ItemKind::Mixed, &format!("[{}]", mixed.join(", "))).unwrap(), mixed);
        let refused = items(ItemKind::Mixed, r#"["a", {"b": 1}]"#).unwrap_err();
        assert!(refused.contains("expected a number, a string, true or false"), "{refused}");
        assert_eq!(
            items(ItemKind::Bools, "1").unwrap_err(),
            "data: expected an array of true and false, got 1"
        );
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = |depth| "[".repeat(depth) + "1" + &"]".repeat(depth);
        assert_eq!(numbers(&deep(MAX_RANK), &[1; MAX_RANK]).unwrap(), ["1"]);
        assert!(numbers(&deep(MAX_RANK + 1), &[1; MAX_RANK + 1]).is_err());
        assert!(numbers(&deep(100_000), &[1, 1]).is_err());
    }

    proptest! {
        #[test]
        fn no_json_panics(
            json in r#"(\[|\]|,|1|-2e5|"x"|"\\""|true|null|\{|\}| ){0,24}"#,
            shape in prop::collection::vec(0_u32..4, 0..20),
        ) {
            if let Ok(json) = serde_json::from_str::<&RawValue>(&json) {
                for kind in [ItemKind::Numbers, ItemKind::Strings, ItemKind::Bools, ItemKind::Mixed] {
                    let _ = read(&"data", kind, json, &shape, |_| Ok(()));
                }
            }
        }

        #[test]
        fn every_layout_of_the_shape_reads_the_same(numbers_in in prop::collection::vec(any::<i64>(), 6)) {
            let n = &numbers_in;
            let flat = format!("{n:?}");
            let nested = format!("[{:?}, {:?}]", &n[..3], &n[3..]);
            prop_assert_eq!(numbers(&flat, &[2, 3]), numbers(&nested, &[2, 3]));
        }
    }
}
