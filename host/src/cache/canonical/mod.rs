//! A body of JSON in the form that all bodies share which mean the same, whoever wrote them.
//!
//! White space, the order of members, escapes and the notation of numbers say nothing; nor, where a body
//! is of tensors, does it say anything whether `data` is nested as `shape` says or flat.
//!
//! The form is JSON too, and means what the body means. So it is its own form, and nothing is confused
//! if some bodies are kept by their bytes: those that are no JSON, too long or too deep; and those in
//! which a name stands twice, as readers differ in which of the two counts.
//!
//! Numbers are compared as the decimals they are: `5.10`, `5.1` and `51e-1` are one. As FP64, which
//! RFC 8785 (the JSON Canonicalization Scheme) takes them for, two integers above 2^53 would be one too,
//! and two decimals next to each other that FP32 tells apart.

use std::io::Write as _;
use std::ops::Range;

use super::body_key::BodyKey;

mod shape;
#[cfg(test)]
mod tests;

use shape::Shape;

/// Of a body: to bring so much into the form takes a fifth of a millisecond, and it is done by the thread
/// that polls connections.
const MAX_BYTES: usize = 32 << 10;
/// Of arrays and objects in each other. Requests of the protocols have 20 at most.
const MAX_DEPTH: usize = 32;
/// Of an exponent: those that a number can have are shorter.
const MAX_EXPONENT_DIGITS: usize = 9;

/// The form of `body`; `None` if it has none.
#[must_use]
pub fn form(body: &[u8], by: BodyKey) -> Option<Vec<u8>> {
    if body.len() > MAX_BYTES {
        return None;
    }
    let rest = str::from_utf8(body).ok()?.as_bytes();
    let form = Vec::with_capacity(body.len() + 16);
    let mut writer = Writer { by, rest, form, members: Vec::new(), sorted: Vec::new() };
    writer.value(MAX_DEPTH)?;
    writer.peek().is_none().then_some(writer.form)
}

struct Writer<'a> {
    by: BodyKey,
    /// What is not read yet.
    rest: &'a [u8],
    form: Vec<u8>,
    /// Of the objects around what is read.
    members: Vec<Member>,
    /// Those of an object that ends, in order.
    sorted: Vec<u8>,
}

/// Where in the form it stands.
#[derive(Clone, Debug)]
struct Member {
    name: Range<usize>,
    value: Range<usize>,
}

impl Writer<'_> {
    fn value(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'{' => self.object(depth.checked_sub(1)?),
            b'[' => self.array(depth.checked_sub(1)?),
            b'"' => self.string(),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        let (start, first) = (self.form.len(), self.members.len());
        self.take(b'{')?;
        if self.peek()? != b'}' {
            loop {
                let name = self.form.len();
                self.peek().filter(|&byte| byte == b'"')?;
                self.string()?;
                let name = name..self.form.len();
                self.take(b':')?;
                self.value(depth)?;
                let value = name.end..self.form.len();
                self.members.push(Member { name, value });
                if self.peek()? != b',' {
                    break;
                }
                self.take(b',')?;
            }
        }
        self.take(b'}')?;
        self.sort(start, first)
    }

    /// Writes the object that stands at `start` in the order of its members' names.
    fn sort(&mut self, start: usize, first: usize) -> Option<()> {
        let Self { by, form, members, sorted, .. } = self;
        let own = &mut members[first..];
        own.sort_unstable_by(|a, b| form[a.name.clone()].cmp(&form[b.name.clone()]));
        if own.windows(2).any(|two| form[two[0].name.clone()] == form[two[1].name.clone()]) {
            return None;
        }
        let value = |name: &[u8]| {
            let member = own.iter().find(|member| form[member.name.clone()] == *name)?;
            Some(&form[member.value.clone()])
        };
        let shape = match by {
            BodyKey::Tensors => value(b"\"shape\"").and_then(Shape::read),
            BodyKey::Json => None,
        };
        sorted.clear();
        for member in &*own {
            sorted.push(if sorted.is_empty() { b'{' } else { b',' });
            let (name, value) = (&form[member.name.clone()], &form[member.value.clone()]);
            sorted.extend_from_slice(name);
            sorted.push(b':');
            let flat =
                shape.filter(|_| name == b"\"data\"").is_some_and(|s| s.flatten(value, sorted));
            if !flat {
                sorted.extend_from_slice(value);
            }
        }
        if own.is_empty() {
            sorted.push(b'{');
        }
        sorted.push(b'}');
        members.truncate(first);
        form.truncate(start);
        form.extend_from_slice(sorted);
        Some(())
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.take(b'[')?;
        self.form.push(b'[');
        if self.peek()? != b']' {
            loop {
                self.value(depth)?;
                if self.peek()? != b',' {
                    break;
                }
                self.take(b',')?;
                self.form.push(b',');
            }
        }
        self.take(b']')?;
        self.form.push(b']');
        Some(())
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        self.form.extend_from_slice(word);
        Some(())
    }

    /// Writes a number as an integer without a zero at its end, and an exponent, unless that is 0.
    fn number(&mut self) -> Option<()> {
        let Self { rest, form, .. } = self;
        if let Some(tail) = rest.strip_prefix(b"-") {
            *rest = tail;
            form.push(b'-');
        }
        let start = form.len();
        let integer = digits(rest);
        let fraction = match rest.strip_prefix(b".") {
            Some(tail) => {
                *rest = tail;
                Some(digits(rest))
            }
            None => None,
        };
        let valid = match integer {
            [] => false,
            [b'0'] => true,
            [first, ..] => *first != b'0',
        };
        if !valid || fraction.is_some_and(<[u8]>::is_empty) {
            return None;
        }
        let fraction = fraction.unwrap_or_default();
        let mut exponent = exponent(rest)? - fraction.len() as i64;
        let written = if integer == b"0" {
            let zeros = fraction.iter().take_while(|&&digit| digit == b'0').count();
            [&[], &fraction[zeros..]]
        } else {
            [integer, fraction]
        };
        written.iter().for_each(|digits| form.extend_from_slice(digits));
        while form.len() > start && form.last() == Some(&b'0') {
            form.pop();
            exponent += 1;
        }
        // Nearly all have one digit, and formatting would take longer than all the rest.
        let digit = u8::try_from(exponent.unsigned_abs()).ok().filter(|&digit| digit < 10);
        match (digit, exponent) {
            _ if form.len() == start => form.push(b'0'),
            (_, 0) => {}
            (Some(digit), ..0) => form.extend_from_slice(&[b'e', b'-', b'0' + digit]),
            (Some(digit), _) => form.extend_from_slice(&[b'e', b'0' + digit]),
            (None, _) => write!(form, "e{exponent}").ok()?,
        }
        Some(())
    }

    /// Writes a string with the escapes it needs and no others.
    fn string(&mut self) -> Option<()> {
        self.take(b'"')?;
        self.form.push(b'"');
        loop {
            let special = |&byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
            let (plain, rest) = self.rest.split_at(self.rest.iter().position(special)?);
            self.form.extend_from_slice(plain);
            let (&special, rest) = rest.split_first()?;
            self.rest = rest;
            match special {
                b'"' => break,
                b'\\' => self.escape()?,
                _ => return None,
            }
        }
        self.form.push(b'"');
        Some(())
    }

    /// Writes what stands behind a backslash.
    fn escape(&mut self) -> Option<()> {
        let (&kind, rest) = self.rest.split_first()?;
        self.rest = rest;
        let character = match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => self.unicode()?,
            _ => return None,
        };
        if matches!(character, '"' | '\\') {
            self.form.push(b'\\');
        }
        match character {
            '\0'..' ' => write!(self.form, "\\u{:04x}", u32::from(character)).ok()?,
            _ => self.form.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        Some(())
    }

    /// Reads the digits behind `\u`, and those of the other half of a character.
    fn unicode(&mut self) -> Option<char> {
        let first = self.unit()?;
        if let Some(character) = char::from_u32(first.into()) {
            return Some(character);
        }
        self.rest = self.rest.strip_prefix(b"\\u")?;
        let second = self.unit()?;
        char::decode_utf16([first, second]).next()?.ok()
    }

    fn unit(&mut self) -> Option<u16> {
        let (unit, rest) = self.rest.split_at_checked(4)?;
        self.rest = rest;
        let digit = |&byte: &u8| char::from(byte).to_digit(16);
        let unit = unit.iter().map(digit).try_fold(0, |unit, digit| Some(unit * 16 + digit?))?;
        u16::try_from(unit).ok()
    }

    /// The next byte that is no white space, which is skipped.
    fn peek(&mut self) -> Option<u8> {
        let space = |byte: &&u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
        self.rest = &self.rest[self.rest.iter().take_while(space).count()..];
        self.rest.first().copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.peek().filter(|&next| next == byte)?;
        self.rest = &self.rest[1..];
        Some(())
    }
}

/// The digits that `rest` starts with, which are taken from it.
fn digits<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, tail) = rest.split_at(count);
    *rest = tail;
    digits
}

/// The exponent that `rest` starts with, which is taken from it, or 0.
fn exponent(rest: &mut &[u8]) -> Option<i64> {
    let [b'e' | b'E', tail @ ..] = *rest else { return Some(0) };
    let (negative, tail) = match tail {
        [b'-', tail @ ..] => (true, tail),
        [b'+', tail @ ..] | tail => (false, tail),
    };
    *rest = tail;
    let digits = digits(rest);
    let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    if digits.is_empty() || digits.len() - zeros > MAX_EXPONENT_DIGITS {
        return None;
    }
    let value = digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
    Some(if negative { -value } else { value })
}
