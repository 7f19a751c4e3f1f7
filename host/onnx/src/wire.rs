//! Edits of an encoded protobuf message. Every byte outside of the edited fields stays.

use prost::DecodeError;
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
};

/// One field of a message.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    pub number: u32,
    /// The whole field: its key and its value.
    pub bytes: &'a [u8],
    /// The content of a string, bytes, a message or packed numbers; `None` for a single number.
    pub content: Option<&'a [u8]>,
}

/// The fields of `message`, in the order of its bytes. Iteration stops after the first error.
pub fn fields(message: &[u8]) -> impl Iterator<Item = Result<Field<'_>, DecodeError>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = take_field(&mut rest);
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

fn take_field<'a>(rest: &mut &'a [u8]) -> Result<Field<'a>, DecodeError> {
    let start = *rest;
    let (number, wire_type) = decode_key(rest)?;
    let value = *rest;
    let content = match wire_type {
        WireType::LengthDelimited => {
            let length = usize::try_from(decode_varint(rest)?).unwrap_or(usize::MAX);
            rest.split_at_checked(length)
        }
        _ => None,
    };
    if let Some((_, after)) = content {
        *rest = after;
    } else {
        // Also for the error of a truncated field.
        *rest = value;
        skip_field(wire_type, number, rest, DecodeContext::default())?;
    }
    let bytes = &start[..start.len() - rest.len()];
    Ok(Field { number, bytes, content: content.map(|(content, _)| content) })
}

/// `message` with its fields `number` (strings, bytes, messages) replaced. `with` receives the
/// position of each among them and its content, and returns the contents of the fields in its
/// place, or `None` to keep it.
///
/// # Errors
/// If the message is not valid protobuf, or `with` fails.
pub fn splice(
    message: &[u8],
    number: u32,
    mut with: impl FnMut(usize, &[u8]) -> Result<Option<Vec<Vec<u8>>>, DecodeError>,
) -> Result<Vec<u8>, DecodeError> {
    let mut edited = Vec::with_capacity(message.len());
    let mut position = 0;
    for field in fields(message) {
        let field = field?;
        let contents = match field.content {
            Some(content) if field.number == number => {
                position += 1;
                with(position - 1, content)?
            }
            _ => None,
        };
        match contents {
            Some(contents) => {
                contents.iter().for_each(|content| push(number, content, &mut edited));
            }
            None => edited.extend_from_slice(field.bytes),
        }
    }
    Ok(edited)
}

/// [`splice`] with one field in the place of one.
///
/// # Errors
/// As for [`splice`].
pub fn replace(
    message: &[u8],
    number: u32,
    mut with: impl FnMut(usize, &[u8]) -> Result<Option<Vec<u8>>, DecodeError>,
) -> Result<Vec<u8>, DecodeError> {
    splice(message, number, |position, content| {
        Ok(with(position, content)?.map(|content| vec![content]))
    })
}

/// Appends a field (a string, bytes or a message) to a message.
pub fn push(number: u32, content: &[u8], message: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, message);
    encode_varint(content.len() as u64, message);
    message.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_fields_of_that_number_change() {
        // 1: "a", 2: 7, 1: "b"
        let message = [0x0a, 1, b'a', 0x10, 7, 0x0a, 1, b'b'];
        let unchanged = splice(&message, 1, |_, _| Ok(None)).unwrap();
        assert_eq!(unchanged, message);
        let edited = splice(&message, 1, |position, content| {
            Ok(match position {
                0 => Some(vec![]),
                _ => Some(vec![content.to_vec(), b"cd".to_vec()]),
            })
        });
        assert_eq!(edited.unwrap(), [0x10, 7, 0x0a, 1, b'b', 0x0a, 2, b'c', b'd']);
        let replaced = replace(&message, 1, |_, _| Ok(Some(vec![])));
        assert_eq!(replaced.unwrap(), [0x0a, 0, 0x10, 7, 0x0a, 0]);
        assert!(splice(&message[..7], 1, |_, _| Ok(None)).is_err(), "truncated within a field");
    }

    #[test]
    fn a_field_has_its_number_and_its_content() {
        let message = [0x0a, 1, b'a', 0x10, 7, 0x0a];
        let found: Vec<_> = fields(&message).collect();
        let [Ok(text), Ok(number), Err(_)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((text.number, text.bytes, text.content), (1, &message[..3], Some(&b"a"[..])));
        assert_eq!((number.number, number.bytes, number.content), (2, &message[3..5], None));
    }
}
