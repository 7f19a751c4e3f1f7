//! The canonical form of a JSON body: the same for all bodies with the same meaning.
//!
//! White space, the order of members, escapes and the notation of numbers make no difference. In
//! tensors, neither does whether `data` is flat or nested according to `shape`.
//!
//! The canonical form is JSON with the meaning of the body, and its own canonical form. So nothing is
//! confused where bodies are compared by their bytes instead:
//!
//! - bodies that are not JSON, too long, or nested too deeply;
//! - bodies with a duplicate name in an object, as readers differ in which of the two they use.
//!
//! Numbers are compared as decimals: `5.10`, `5.1` and `51e-1` are equal. RFC 8785 (the JSON
//! Canonicalization Scheme) compares them as FP64, where distinct integers above 2^53 can be equal, and
//! so can neighbouring decimals that are distinct when read as FP32.

use std::io::Write as _;
use std::ops::Range;

use super::body_key::BodyKey;

mod shape;
#[cfg(test)]
mod tests;

use shape::Shape;

/// Maximum size of a body, in bytes: this much takes 0.2 ms, on the thread that polls connections.
const MAX_BYTES: usize = 32 << 10;
/// Maximum nesting of arrays and objects. Requests of the protocols have at most 20.
const MAX_DEPTH: usize = 32;
/// Maximum number of digits of an exponent; those of representable numbers are shorter.
const MAX_EXPONENT_DIGITS: usize = 9;

/// The canonical form of `body`; `None` if it has to be compared by its bytes.
#[must_use]
pub fn form(body: &[u8], by: BodyKey) -> Option<Vec<u8>> {
    if body.len() > MAX_BYTES {
        return None;
    }
    let rest = str::from_utf8(body).ok()?.as_bytes();
    let form = Vec::with_capacity(body.len() + 16);
    let mut writer = CanonicalWriter { by, rest, form, members: Vec::new(), sorted: Vec::new() };
    writer.value(MAX_DEPTH)?;
    writer.peek().is_none().then_some(writer.form)
}

struct CanonicalWriter<'a> {
    by: BodyKey,
    /// The unread part of the body.
    rest: &'a [u8],
    form: Vec<u8>,
    /// The members so far of all objects around the current position.
    members: Vec<MemberSpan>,
    /// Buffer for the sorted members of an object that is complete.
    sorted: Vec<u8>,
}

/// The position of an object's member in `form`.
#[derive(Clone, Debug)]
struct MemberSpan {
    name: Range<usize>,
    value: Range<usize>,
}

impl CanonicalWriter<'_> {
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
                self.members.push(MemberSpan { name, value });
                if self.peek()? != b',' {
                    break;
                }
                self.take(b',')?;
            }
        }
        self.take(b'}')?;
        self.sort(start, first)
    }

    /// Rewrites the object at `start` with its members in the order of their names.
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

    /// Writes a number as an integer without trailing zeros, and its exponent, unless that is 0.
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
        // Nearly all exponents have one digit; formatting would take longer than the rest together.
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

    /// Writes a string with only the escapes that JSON requires.
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

    /// Writes the character of an escape, after its backslash.
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

    /// Reads the digits after `\u`, and the second half of a surrogate pair.
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

    /// Skips white space, and returns the next byte.
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

/// Takes the digits at the start of `rest`.
fn digits<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, tail) = rest.split_at(count);
    *rest = tail;
    digits
}

/// Takes the exponent at the start of `rest`; 0 if there is none.
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
