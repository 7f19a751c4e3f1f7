//! Replies of Redis: finds the end of a reply and the memory it will take, before all of it is
//! received, and parses its values.

use std::mem::size_of;
use std::str::from_utf8;

use redis::{Value, VerbatimFormat};

/// Maximum memory of one reply, in bytes: twice its length, since it is held both as received and as values,
/// and [`VALUE_OVERHEAD`] for each value.
pub(crate) const MAX_MEMORY: usize = 64 << 20;
/// Overhead of a value, in bytes: here, flattened for the guest, and in lists that grow. A value takes
/// at least four bytes of a reply.
const VALUE_OVERHEAD: usize = 2 * size_of::<Value>() + 80;
/// Maximum depth of nested lists.
const MAX_DEPTH: usize = 100;

/// Why a reply is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error(
        "the reply takes more than {} MiB of memory; request less at a time",
        MAX_MEMORY >> 20
    )]
    TooLarge,
    #[error("the reply has more than {MAX_DEPTH} nested lists")]
    TooDeep,
    #[error("the reply is not valid in the protocol of Redis")]
    Garbage,
}

/// What follows a line of a reply.
enum ReplyHead {
    /// Nothing: the line is the value.
    Line,
    Nil,
    /// This number of bytes, and a line end.
    Text(usize),
    /// This number of values.
    List(usize),
}

fn head(line: &[u8]) -> Result<ReplyHead, Malformed> {
    let (kind, rest) = line.split_first().ok_or(Malformed::Garbage)?;
    let count = || {
        let number = from_utf8(rest).ok().and_then(|text| text.parse::<i64>().ok());
        number.ok_or(Malformed::Garbage)
    };
    let many = |each: usize, more: usize| {
        let count = usize::try_from(count()?).map_err(|_| Malformed::Garbage)?;
        let count = count.checked_mul(each).and_then(|count| count.checked_add(more));
        count.filter(|count| *count <= MAX_MEMORY).ok_or(Malformed::TooLarge)
    };
    Ok(match kind {
        b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => ReplyHead::Line,
        b'$' | b'*' if count()? == -1 => ReplyHead::Nil,
        b'$' | b'!' | b'=' => ReplyHead::Text(many(1, 0)?),
        b'*' | b'~' | b'>' => ReplyHead::List(many(1, 0)?),
        b'%' => ReplyHead::List(many(2, 0)?),
        // Attributes of a value, and the value.
        b'|' => ReplyHead::List(many(2, 1)?),
        _ => return Err(Malformed::Garbage),
    })
}

const LINE_END: &[u8] = b"\r\n";

/// The first line of `bytes`, of which the first `seen` bytes contain no line end.
fn line(bytes: &[u8], seen: usize) -> Option<&[u8]> {
    let end = bytes[seen..].windows(2).position(|pair| pair == LINE_END)?;
    Some(&bytes[..seen + end])
}

/// Finds the end of a reply while it is received.
#[derive(Debug)]
pub(crate) struct Scan {
    /// Offset of the next line; beyond the received bytes if these end within a string.
    at: usize,
    /// Number of bytes of that line that contain no line end.
    seen: usize,
    /// Number of values whose line is not received yet.
    left: usize,
    /// Number of values, as far as is known.
    values: usize,
}

impl Default for Scan {
    fn default() -> Self {
        Self { at: 0, seen: 0, left: 1, values: 1 }
    }
}

impl Scan {
    /// Scans the `bytes` received so far, from the start of the reply. Returns its length once it is
    /// complete.
    ///
    /// # Errors
    /// The reply is malformed, or will take too much memory.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        while self.left > 0 {
            let Some(rest) = bytes.get(self.at..) else { return Ok(None) };
            let Some(line) = line(rest, self.seen) else {
                self.seen = rest.len().saturating_sub(1);
                self.check(bytes.len())?;
                return Ok(None);
            };
            self.left -= 1;
            self.at += line.len() + LINE_END.len();
            self.seen = 0;
            match head(line)? {
                ReplyHead::Line | ReplyHead::Nil => {}
                ReplyHead::Text(bytes) => self.at += bytes + LINE_END.len(),
                ReplyHead::List(values) => {
                    self.left += values;
                    self.values += values;
                }
            }
            self.check(self.at)?;
        }
        Ok((self.at <= bytes.len()).then_some(self.at))
    }

    /// Memory that the reply takes, as far as is known, in bytes.
    pub(crate) fn memory(&self) -> usize {
        2 * self.at + self.values * VALUE_OVERHEAD
    }

    /// Minimum number of bytes to receive in addition to `received`.
    pub(crate) fn missing(&self, received: usize) -> usize {
        self.at.saturating_sub(received)
    }

    fn check(&self, bytes: usize) -> Result<(), Malformed> {
        let memory = 2 * bytes + self.values * VALUE_OVERHEAD;
        if memory > MAX_MEMORY { Err(Malformed::TooLarge) } else { Ok(()) }
    }
}

/// Whether this is a push message instead of a reply to a command.
pub(crate) fn is_push(reply: &[u8]) -> bool {
    reply.first() == Some(&b'>')
}

/// Parses a complete reply.
///
/// # Errors
/// The reply is malformed or nested too deeply.
pub(crate) fn value(reply: &[u8]) -> Result<Value, Malformed> {
    let mut rest = reply;
    let value = read(&mut rest, MAX_DEPTH)?;
    if rest.is_empty() { Ok(value) } else { Err(Malformed::Garbage) }
}

/// Parses a value at the start of `rest`, and advances `rest` behind it.
fn read(rest: &mut &[u8], depth: usize) -> Result<Value, Malformed> {
    let line = line(rest, 0).ok_or(Malformed::Garbage)?;
    take(rest, line.len() + LINE_END.len())?;
    match head(line)? {
        ReplyHead::Line => simple(line),
        ReplyHead::Nil => Ok(Value::Nil),
        ReplyHead::Text(bytes) => {
            let text = take(rest, bytes)?;
            if take(rest, LINE_END.len())? != LINE_END {
                return Err(Malformed::Garbage);
            }
            long(line[0], text)
        }
        ReplyHead::List(count) => {
            let depth = depth.checked_sub(1).ok_or(Malformed::TooDeep)?;
            let mut values = (0..count).map(|_| read(rest, depth));
            list(line[0], &mut values)
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Result<&'a [u8], Malformed> {
    let (taken, remaining) = rest.split_at_checked(bytes).ok_or(Malformed::Garbage)?;
    *rest = remaining;
    Ok(taken)
}

/// Parses a value that is a single line.
fn simple(line: &[u8]) -> Result<Value, Malformed> {
    let text = from_utf8(&line[1..]).map_err(|_| Malformed::Garbage)?;
    Ok(match line[0] {
        b':' => Value::Int(text.parse().map_err(|_| Malformed::Garbage)?),
        b',' => Value::Double(text.parse().map_err(|_| Malformed::Garbage)?),
        b'#' if text == "t" => Value::Boolean(true),
        b'#' if text == "f" => Value::Boolean(false),
        b'#' => return Err(Malformed::Garbage),
        b'_' => Value::Nil,
        b'-' => return error(text),
        b'+' if text == "OK" => Value::Okay,
        _ => Value::SimpleString(text.to_owned()),
    })
}

/// Parses a value that is a string with a length.
fn long(kind: u8, text: &[u8]) -> Result<Value, Malformed> {
    let utf8 = || from_utf8(text).map_err(|_| Malformed::Garbage);
    Ok(match kind {
        b'!' => return error(utf8()?),
        b'=' => {
            let (_format, text) = utf8()?.split_once(':').ok_or(Malformed::Garbage)?;
            Value::VerbatimString { format: VerbatimFormat::Text, text: text.to_owned() }
        }
        _ => Value::BulkString(text.to_vec()),
    })
}

/// An error value: only the library can create one, from a line of a reply.
fn error(text: &str) -> Result<Value, Malformed> {
    let line = text.lines().next().unwrap_or_default();
    redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).map_err(|_| Malformed::Garbage)
}

/// Parses a value that consists of values.
fn list(
    kind: u8,
    values: &mut dyn ExactSizeIterator<Item = Result<Value, Malformed>>,
) -> Result<Value, Malformed> {
    let pairs = |values: &mut dyn ExactSizeIterator<Item = _>| {
        let mut pairs = Vec::with_capacity(values.len() / 2);
        for _ in 0..values.len() / 2 {
            let mut next = || values.next().unwrap_or(Err(Malformed::Garbage));
            pairs.push((next()?, next()?));
        }
        Ok(pairs)
    };
    match kind {
        b'%' => Ok(Value::Map(pairs(values)?)),
        b'|' => {
            pairs(values)?;
            values.next().unwrap_or(Err(Malformed::Garbage))
        }
        _ => {
            let mut list = Vec::with_capacity(values.len());
            for value in values {
                list.push(value?);
            }
            Ok(if kind == b'~' { Value::Set(list) } else { Value::Array(list) })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Length and value of the reply at the start of `bytes`, which are received one by one.
    fn scanned(bytes: &[u8]) -> Result<Option<(usize, Value)>, Malformed> {
        let mut scan = Scan::default();
        for received in 0..=bytes.len() {
            if let Some(length) = scan.advance(&bytes[..received])? {
                return Ok(Some((length, value(&bytes[..length])?)));
            }
        }
        Ok(None)
    }

    fn encode(value: &Value, out: &mut Vec<u8>) {
        let list = |kind: char, values: &[&Value], count: usize, out: &mut Vec<u8>| {
            out.extend(format!("{kind}{count}\r\n").bytes());
            values.iter().for_each(|value| encode(value, out));
        };
        match value {
            Value::Nil => out.extend(b"$-1\r\n"),
            Value::Int(number) => out.extend(format!(":{number}\r\n").bytes()),
            Value::Double(number) => out.extend(format!(",{number}\r\n").bytes()),
            Value::Boolean(yes) => out.extend(if *yes { b"#t\r\n" } else { b"#f\r\n" }),
            Value::Okay => out.extend(b"+OK\r\n"),
            Value::SimpleString(text) => out.extend(format!("+{text}\r\n").bytes()),
            Value::BulkString(bytes) => {
                out.extend(format!("${}\r\n", bytes.len()).bytes());
                out.extend(bytes);
                out.extend(b"\r\n");
            }
            Value::Array(values) => {
                list('*', &values.iter().collect::<Vec<_>>(), values.len(), out);
            }
            Value::Set(values) => list('~', &values.iter().collect::<Vec<_>>(), values.len(), out),
            Value::Map(pairs) => {
                let values: Vec<_> = pairs.iter().flat_map(|(key, value)| [key, value]).collect();
                list('%', &values, pairs.len(), out);
            }
            _ => unreachable!("no strategy generates it"),
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            Just(Value::Okay),
            any::<i64>().prop_map(Value::Int),
            any::<bool>().prop_map(Value::Boolean),
            (-1e9..1e9).prop_map(Value::Double),
            "[a-zA-Z ]{3,9}".prop_map(Value::SimpleString),
            proptest::collection::vec(any::<u8>(), 0..30).prop_map(Value::BulkString),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            let list = || proptest::collection::vec(inner.clone(), 0..6);
            prop_oneof![
                list().prop_map(Value::Array),
                list().prop_map(Value::Set),
                proptest::collection::vec((inner.clone(), inner.clone()), 0..4)
                    .prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        /// The length is that of the reply, whatever follows it, and the library parses the same value.
        #[test]
        fn reply_is_delimited_and_parsed(value in values(), rest in "[$*:+\r\n0-9]{0,9}") {
            let mut bytes = Vec::new();
            encode(&value, &mut bytes);
            let length = bytes.len();
            prop_assert_eq!(redis::parse_redis_value(&bytes), Ok(value.clone()));
            for end in 0..length {
                prop_assert_eq!(scanned(&bytes[..end]), Ok(None));
            }
            bytes.extend(rest.bytes());
            prop_assert_eq!(scanned(&bytes), Ok(Some((length, value))));
        }

        #[test]
        fn any_bytes_are_parsed_or_rejected(
            bytes in "([-+:$*~%|>!=_,#(][-0-9a-z]{0,3}(\r\n)?){0,20}",
        ) {
            let _ = scanned(bytes.as_bytes());
        }
    }

    #[test]
    fn types_of_the_newer_protocol_are_parsed() {
        let parsed = |text: &str| scanned(text.as_bytes()).unwrap().unwrap().1;
        assert_eq!(parsed("_\r\n"), Value::Nil);
        assert_eq!(parsed("*-1\r\n"), Value::Nil);
        assert_eq!(parsed("|1\r\n+ttl\r\n:3\r\n:7\r\n"), Value::Int(7));
        assert_eq!(
            parsed("(123456789012345678901\r\n"),
            Value::SimpleString("123456789012345678901".into())
        );
        let text = Value::VerbatimString { format: VerbatimFormat::Text, text: "a".into() };
        assert_eq!(parsed("=5\r\ntxt:a\r\n"), text);
        for error in ["-WRONGTYPE not a list\r\n", "!20\r\nWRONGTYPE not a list\r\n"] {
            let error = parsed(error).extract_error().unwrap_err();
            assert_eq!(error.code(), Some("WRONGTYPE"));
        }
        assert!(is_push(b">1\r\n+invalidate\r\n") && !is_push(b"*0\r\n"));
    }

    #[test]
    fn malformed_replies_are_rejected() {
        for garbage in [
            "\r\n",
            "x\r\n",
            "$\r\n",
            "$-2\r\n",
            "*-2\r\n",
            "%-5\r\n",
            "!-1\r\n",
            ":1x\r\n",
            "#x\r\n",
            "$1\r\nab\r\n",
            ",x\r\n",
            "=1\r\na\r\n",
        ] {
            assert_eq!(scanned(garbage.as_bytes()), Err(Malformed::Garbage), "{garbage:?}");
        }
        let deep = "*1\r\n".repeat(MAX_DEPTH + 1) + ":1\r\n";
        assert_eq!(scanned(deep.as_bytes()), Err(Malformed::TooDeep));
        assert!(scanned(&deep.as_bytes()[4..]).is_ok());
    }

    /// Before the reply is received.
    #[test]
    fn oversized_replies_are_rejected_at_once() {
        let values = MAX_MEMORY / VALUE_OVERHEAD;
        for claim in [
            format!("${MAX_MEMORY}\r\n"),
            format!("${}\r\n", MAX_MEMORY / 2),
            "$9223372036854775807\r\n".into(),
            format!("*{values}\r\n"),
            format!("%{}\r\n", values / 2 + 1),
            format!("*2\r\n*{}\r\n*{}\r\n", values / 2, values / 2),
            "*9223372036854775807\r\n".into(),
            "%9223372036854775807\r\n".into(),
        ] {
            assert_eq!(scanned(claim.as_bytes()), Err(Malformed::TooLarge), "{claim:?}");
        }
        let maximum = format!("${}\r\n", MAX_MEMORY / 2 - 1000);
        assert_eq!(scanned(maximum.as_bytes()), Ok(None));
        // An endless line.
        let mut scan = Scan::default();
        let mut bytes = vec![b'+'];
        let refused = loop {
            bytes.resize(bytes.len() + (1 << 20), b'a');
            if let Err(refused) = scan.advance(&bytes) {
                break refused;
            }
        };
        assert_eq!(refused, Malformed::TooLarge);
        assert!(bytes.len() <= MAX_MEMORY / 2 + (1 << 20));
    }
}
