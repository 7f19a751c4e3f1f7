//! Editing a message of protobuf while every other byte of it stays.

use prost::DecodeError;
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
};

/// `message` with its fields of the number `tag` (strings, bytes, messages) replaced: `with` gets the
/// position of each among them and its content, and returns the contents that take its place, or
/// `None` to leave it.
///
/// # Errors
/// If the message is not valid protobuf, or `with` fails.
pub fn splice(
    message: &[u8],
    tag: u32,
    mut with: impl FnMut(usize, &[u8]) -> Result<Option<Vec<Vec<u8>>>, DecodeError>,
) -> Result<Vec<u8>, DecodeError> {
    let mut edited = Vec::with_capacity(message.len());
    let mut rest = message;
    let mut position = 0;
    while !rest.is_empty() {
        let field = rest;
        let (found, wire) = decode_key(&mut rest)?;
        if found != tag || wire != WireType::LengthDelimited {
            skip_field(wire, found, &mut rest, DecodeContext::default())?;
            edited.extend_from_slice(&field[..field.len() - rest.len()]);
            continue;
        }
        let before = rest;
        let length = usize::try_from(decode_varint(&mut rest)?).unwrap_or(usize::MAX);
        let Some((content, tail)) = rest.split_at_checked(length) else {
            // The decoder says what is wrong with a message that ends within a field.
            let mut rest = before;
            skip_field(wire, found, &mut rest, DecodeContext::default())?;
            return Ok(message.to_vec());
        };
        rest = tail;
        match with(position, content)? {
            Some(contents) => {
                for content in contents {
                    push(tag, &content, &mut edited);
                }
            }
            None => edited.extend_from_slice(&field[..field.len() - rest.len()]),
        }
        position += 1;
    }
    Ok(edited)
}

/// [`splice`] where one content takes the place of one.
///
/// # Errors
/// As for [`splice`].
pub fn replace(
    message: &[u8],
    tag: u32,
    mut with: impl FnMut(usize, &[u8]) -> Result<Option<Vec<u8>>, DecodeError>,
) -> Result<Vec<u8>, DecodeError> {
    splice(message, tag, |position, content| {
        Ok(with(position, content)?.map(|content| vec![content]))
    })
}

/// Appends a field (a string, bytes, a message) to a message.
pub fn push(tag: u32, content: &[u8], message: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, message);
    encode_varint(content.len() as u64, message);
    message.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_fields_in_question_change() {
        // 1: "a", 2: 7, 1: "b"
        let message = [0x0a, 1, b'a', 0x10, 7, 0x0a, 1, b'b'];
        let none = splice(&message, 1, |_, _| Ok(None)).unwrap();
        assert_eq!(none, message);
        let edited = splice(&message, 1, |position, content| {
            Ok(match position {
                0 => Some(vec![]),
                _ => Some(vec![content.to_vec(), b"cd".to_vec()]),
            })
        });
        assert_eq!(edited.unwrap(), [0x10, 7, 0x0a, 1, b'b', 0x0a, 2, b'c', b'd']);
        let replaced = replace(&message, 1, |_, _| Ok(Some(vec![])));
        assert_eq!(replaced.unwrap(), [0x0a, 0, 0x10, 7, 0x0a, 0]);
        assert!(splice(&message[..7], 1, |_, _| Ok(None)).is_err(), "it ends within a field");
    }
}
