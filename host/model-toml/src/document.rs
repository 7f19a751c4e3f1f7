//! A TOML document as a tree of values with their positions. Built on `toml_parser`: the `toml` crate would
//! add 50 kB to every component.

use std::borrow::Cow;

use toml_parser::decoder::{Encoding, ScalarKind};
use toml_parser::parser::{EventReceiver, RecursionGuard, parse_document};
use toml_parser::{ErrorSink, Expected, ParseError, Raw, Source, Span};

/// Maximum depth of nested arrays and inline tables.
const MAX_DEPTH: u32 = 80;

/// A parsed document.
pub(crate) struct Document<'a> {
    pub(crate) text: &'a str,
    /// In document order, a table or array before its content. The first is the root.
    nodes: Vec<Node<'a>>,
}

/// A value, and where it is.
pub(crate) struct Node<'a> {
    /// Index of the table or array that contains it.
    parent: usize,
    /// Key in a table. Empty in an array.
    key: Cow<'a, str>,
    /// Byte offset in the text.
    pub(crate) start: usize,
    pub(crate) value: TomlValue<'a>,
}

/// A value of TOML.
pub(crate) enum TomlValue<'a> {
    Table,
    Array,
    Scalar(ScalarKind, Cow<'a, str>),
}

/// Index of the root table.
pub(crate) const ROOT: usize = 0;

impl<'a> Document<'a> {
    /// Parses a document.
    ///
    /// # Errors
    /// With the byte offset, and what is wrong there.
    pub(crate) fn parse(text: &'a str) -> Result<Self, (usize, String)> {
        let root = Node { parent: ROOT, key: "".into(), start: 0, value: TomlValue::Table };
        let mut reader = DocumentBuilder {
            document: Self { text, nodes: vec![root] },
            table: ROOT,
            open: Vec::new(),
            key: None,
        };
        let mut error: Option<ParseError> = None;
        let mut receiver = RecursionGuard::new(&mut reader, MAX_DEPTH);
        parse_document(&Source::new(text).lex().into_vec(), &mut receiver, &mut error);
        match error {
            Some(error) => Err(describe(&error)),
            None => Ok(reader.document),
        }
    }

    /// The node with this index.
    pub(crate) fn node(&self, index: usize) -> &Node<'a> {
        &self.nodes[index]
    }

    /// The index of the value of `key` in a table.
    pub(crate) fn get(&self, table: usize, key: &str) -> Option<usize> {
        self.within(table).find(|&child| self.nodes[child].key == key)
    }

    /// The indices of the values in a table or array, in order.
    pub(crate) fn within(&self, parent: usize) -> impl DoubleEndedIterator<Item = usize> {
        (parent + 1..self.nodes.len()).filter(move |&child| self.nodes[child].parent == parent)
    }

    /// The line of a byte offset, from 1.
    pub(crate) fn line(&self, start: usize) -> usize {
        line(self.text, start)
    }

    fn push(
        &mut self,
        parent: usize,
        key: Cow<'a, str>,
        start: usize,
        value: TomlValue<'a>,
    ) -> usize {
        self.nodes.push(Node { parent, key, start, value });
        self.nodes.len() - 1
    }
}

impl Node<'_> {
    /// Key in a table. Empty in an array.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }
}

/// The line of a byte offset in `text`, from 1.
pub(crate) fn line(text: &str, start: usize) -> usize {
    text.get(..start).unwrap_or_default().matches('\n').count() + 1
}

impl TomlValue<'_> {
    /// The name of the type in TOML.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Array => "array",
            Self::Scalar(ScalarKind::Integer(_), _) => "integer",
            Self::Scalar(kind, _) => kind.description(),
        }
    }
}

/// The position and message of a parse error.
fn describe(error: &ParseError) -> (usize, String) {
    let span = error.unexpected().or(error.context());
    let mut message = error.description().to_owned();
    let expected = error.expected().unwrap_or_default();
    for (index, expected) in expected.iter().enumerate() {
        message += if index == 0 { ", expected " } else { ", " };
        match expected {
            Expected::Literal(text) => message.extend(["`", text, "`"]),
            Expected::Description(text) => message += text,
            _ => {}
        }
    }
    (span.map_or(0, |span| span.start()), message)
}

/// Builds the document from the parser's events. After an error they may not match; the document is then
/// discarded.
struct DocumentBuilder<'a> {
    document: Document<'a>,
    /// The table of the last header.
    table: usize,
    /// The open arrays and inline tables.
    open: Vec<usize>,
    /// The last key, and the table it belongs to.
    key: Option<(usize, Cow<'a, str>)>,
}

impl<'a> DocumentBuilder<'a> {
    fn raw(&self, span: Span, encoding: Option<Encoding>) -> Option<Raw<'a>> {
        let text = self.document.text.get(span.start()..span.end())?;
        Some(Raw::new_unchecked(text, encoding, span))
    }

    fn add(&mut self, span: Span, value: TomlValue<'a>, error: &mut dyn ErrorSink) -> usize {
        let (parent, key) = match self.open.last() {
            Some(&array) if matches!(self.document.node(array).value, TomlValue::Array) => {
                (array, "".into())
            }
            _ => self.key.take().unwrap_or_default(),
        };
        if !key.is_empty() && self.document.get(parent, &key).is_some() {
            error.report_error(ParseError::new("duplicate key").with_unexpected(span));
        }
        self.document.push(parent, key, span.start(), value)
    }

    /// The table that the last key names: a new one, or the last of an array of tables.
    fn descend(&mut self, span: Span, error: &mut dyn ErrorSink) -> usize {
        let (parent, key) = self.key.take().unwrap_or_default();
        let document = &mut self.document;
        let Some(found) = document.get(parent, &key) else {
            return document.push(parent, key, span.start(), TomlValue::Table);
        };
        let last = document.within(found).next_back();
        match (&document.node(found).value, last) {
            (TomlValue::Table, _) => found,
            (TomlValue::Array, Some(last))
                if matches!(document.node(last).value, TomlValue::Table) =>
            {
                last
            }
            _ => {
                error.report_error(ParseError::new("not a table").with_unexpected(span));
                found
            }
        }
    }
}

impl EventReceiver for DocumentBuilder<'_> {
    fn std_table_open(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.table = ROOT;
    }

    fn std_table_close(&mut self, span: Span, error: &mut dyn ErrorSink) {
        self.table = self.descend(span, error);
    }

    fn array_table_open(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.table = ROOT;
    }

    fn array_table_close(&mut self, span: Span, error: &mut dyn ErrorSink) {
        let (parent, key) = self.key.take().unwrap_or_default();
        let array = self
            .document
            .get(parent, &key)
            .unwrap_or_else(|| self.document.push(parent, key, span.start(), TomlValue::Array));
        if !matches!(self.document.node(array).value, TomlValue::Array) {
            error.report_error(ParseError::new("not an array of tables").with_unexpected(span));
        }
        self.table = self.document.push(array, "".into(), span.start(), TomlValue::Table);
    }

    fn inline_table_open(&mut self, span: Span, error: &mut dyn ErrorSink) -> bool {
        let table = self.add(span, TomlValue::Table, error);
        self.open.push(table);
        true
    }

    fn inline_table_close(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.open.pop();
    }

    fn array_open(&mut self, span: Span, error: &mut dyn ErrorSink) -> bool {
        let array = self.add(span, TomlValue::Array, error);
        self.open.push(array);
        true
    }

    fn array_close(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.open.pop();
    }

    fn simple_key(&mut self, span: Span, encoding: Option<Encoding>, error: &mut dyn ErrorSink) {
        // The first part of a dotted key belongs to the innermost table, the others to that of `key_sep`.
        let table = match self.key.take() {
            Some((table, _)) => table,
            None => self.open.last().copied().unwrap_or(self.table),
        };
        let mut key = Cow::Borrowed("");
        if let Some(raw) = self.raw(span, encoding) {
            raw.decode_key(&mut key, error);
        }
        self.key = Some((table, key));
    }

    fn key_sep(&mut self, span: Span, error: &mut dyn ErrorSink) {
        let table = self.descend(span, error);
        self.key = Some((table, Cow::Borrowed("")));
    }

    fn scalar(&mut self, span: Span, encoding: Option<Encoding>, error: &mut dyn ErrorSink) {
        let mut text = Cow::Borrowed("");
        if let Some(raw) = self.raw(span, encoding) {
            let kind = raw.decode_scalar(&mut text, error);
            self.add(span, TomlValue::Scalar(kind, text), error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each value as `path = text`, in document order.
    fn flat(text: &str) -> Result<Vec<String>, (usize, String)> {
        fn list(document: &Document<'_>, parent: usize, path: &str, into: &mut Vec<String>) {
            for (index, child) in document.within(parent).enumerate() {
                let node = document.node(child);
                let path = match document.node(parent).value {
                    TomlValue::Array => format!("{path}[{index}]"),
                    _ => format!("{path}.{}", node.key),
                };
                if let TomlValue::Scalar(kind, text) = &node.value {
                    into.push(format!("{path} = {} {text}", kind.description()));
                }
                list(document, child, &path, into);
            }
        }
        let document = Document::parse(text)?;
        let mut values = Vec::new();
        list(&document, ROOT, "", &mut values);
        Ok(values)
    }

    #[test]
    fn tables_in_every_notation() {
        for (text, values) in [
            (
                "a = 'x'\nb.c = 1\nb.\"d e\" = 0x1f",
                vec![".a = string x", ".b.c = integer 1", ".b.d e = hexadecimal 1f"],
            ),
            ("[a]\nb = true\n[a.c]\nd = 1.5", vec![".a.b = boolean true", ".a.c.d = float 1.5"]),
            (
                "[[a]]\nb = 1\n[[a]]\n[a.c]\nb = 2\n[[a.d]]\ne = 3",
                vec![".a[0].b = integer 1", ".a[1].c.b = integer 2", ".a[1].d[0].e = integer 3"],
            ),
            (
                "a = [{ b = [1, [2]], c.d = '''x''' }, 'y']\ne = 1_000",
                vec![
                    ".a[0].b[0] = integer 1",
                    ".a[0].b[1][0] = integer 2",
                    ".a[0].c.d = string x",
                    ".a[1] = string y",
                    ".e = integer 1000",
                ],
            ),
            ("a = \"\\u00e9\\n\" # b = 1", vec![".a = string é\n"]),
        ] {
            assert_eq!(flat(text).unwrap(), values, "{text}");
        }
    }

    #[test]
    fn invalid_toml_is_refused_with_its_position() {
        for (text, position) in [
            ("a = 1\na = 2", 10),
            ("a = 1\n[a]\nb = 1", 8),
            ("a = []\n[[a.b]]", 11),
            ("a = 1\n[[a]]", 9),
            ("a = {b = 1, b = 2}", 16),
            ("a = \"\\q\"", 6),
            ("a = [1", 4),
            ("a 1", 1),
        ] {
            let (start, problem) = flat(text).unwrap_err();
            assert!(
                start.abs_diff(position) <= 2 && !problem.is_empty(),
                "{text}: {start} {problem}"
            );
        }
        assert!(flat(&format!("a = {}", "[".repeat(100_000))).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(
            any in ".{0,40}",
            toml in r#"(\[\[?|\]\]?|\{|\}|a|b|\.|=|,|\n|1|'x'|"|#| ){0,30}"#,
        ) {
            let _ = flat(&any);
            let _ = flat(&toml);
        }
    }
}
