//! What the protocols decode and encode bodies with. Numbers stay text until it is known what they
//! must become (`numbers`); nothing is parsed into a tree.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::Error;

/// Room for an answer at first: that of one row fits.
const FIRST_BYTES: usize = 512;

/// A `T` written as an object. Derived decoders would also take its fields from an array.
pub(crate) struct Object<T>(pub(crate) T);

pub(crate) fn decode<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Error> {
    let Object(decoded) = serde_json::from_slice(body).map_err(|error| {
        let hint = if error.is_syntax() { " (JSON has no NaN or Infinity)" } else { "" };
        Error::invalid(format!("the body: {error}{hint}"))
    })?;
    Ok(decoded)
}

/// Decodes a part of a body that was checked before, `what` in messages.
pub(crate) fn decode_part<'de, T: Deserialize<'de>>(
    what: &dyn fmt::Display,
    json: &'de RawValue,
) -> Result<T, Error> {
    // As bytes again: the decoder of a string would be compiled beside that of bytes.
    serde_json::from_slice(json.get().as_bytes())
        .map_err(|error| Error::invalid(format!("{what}: {error}")))
}

pub(crate) fn encode(body: &impl Serialize) -> Result<Vec<u8>, Error> {
    let mut encoded = Vec::with_capacity(FIRST_BYTES);
    serde_json::to_writer(&mut encoded, body)
        .map_err(|error| Error::internal(error.to_string()))?;
    Ok(encoded)
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

/// The entries of an object, in the order sent.
pub(crate) struct Entries<'a>(pub(crate) Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(entries)
            }
        }

        deserializer.deserialize_map(EntriesVisitor).map(Entries)
    }
}
