//! What the protocols decode and encode bodies with. Numbers stay text until it is known what they
//! must become (`numbers`); nothing is parsed into a tree.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::Error;
use crate::room::too_much;

/// A `T` written as an object. Derived decoders would also take its fields from an array.
pub(crate) struct Object<T>(pub(crate) T);

pub(crate) fn decode<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Error> {
    let Object(decoded) = serde_json::from_slice(body).map_err(|error| of_body(&error))?;
    Ok(decoded)
}

fn of_body(error: &serde_json::Error) -> Error {
    let hint = if error.is_syntax() { " (JSON has no NaN or Infinity)" } else { "" };
    Error::invalid(format!("the body: {error}{hint}"))
}

/// What a string of JSON is; `None` for what is none, or half of a character.
pub(crate) fn string(json: &str) -> Option<Cow<'_, str>> {
    let Key(string) = serde_json::from_slice(json.as_bytes()).ok()?;
    Some(string)
}

/// The items of an array that is part of a body that was checked before, `what` in messages. Once in a
/// component, whoever calls it.
#[inline(never)]
pub(crate) fn items<'a>(
    what: &dyn fmt::Display,
    json: &'a RawValue,
) -> Result<Vec<&'a RawValue>, Error> {
    // As bytes again: the decoder of a string would be compiled beside that of bytes.
    let Items(items) = serde_json::from_slice(json.get().as_bytes())
        .map_err(|error| Error::invalid(format!("{what}: {error}")))?;
    items.ok_or_else(too_much)
}

/// `None` if there are more than there is memory for.
struct Items<'a>(Option<Vec<&'a RawValue>>);

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ItemsVisitor;

        impl<'de> Visitor<'de> for ItemsVisitor {
            type Value = Items<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Some(Vec::new());
                while let Some(item) = seq.next_element()? {
                    items = items.and_then(|mut items| {
                        items.try_reserve(1).ok()?;
                        items.push(item);
                        Some(items)
                    });
                }
                Ok(Items(items))
            }
        }

        deserializer.deserialize_seq(ItemsVisitor)
    }
}

/// Into `room`, which grows if it is too small.
pub(crate) fn encode(mut room: Vec<u8>, body: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_writer(&mut room, body).map_err(|error| Error::internal(error.to_string()))?;
    Ok(room)
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
pub(crate) struct Entries<'a>(pub(crate) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Entries<'a> {
    pub(crate) fn of_body(body: &'a [u8]) -> Result<Self, Error> {
        Self::read(body).map_err(|error| of_body(&error))
    }

    /// Of a part of a body that was checked before, `what` in messages.
    pub(crate) fn of_part(what: &dyn fmt::Display, json: &'a RawValue) -> Result<Self, Error> {
        Self::read(json.get().as_bytes())
            .map_err(|error| Error::invalid(format!("{what}: {error}")))
    }

    /// Once in a component, whoever calls it.
    #[inline(never)]
    fn read(json: &'a [u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(json)
    }

    /// What stands under each of `names`, `null` being nothing. Others may stand there too. `what` is
    /// the object in messages.
    pub(crate) fn pick<const N: usize>(
        &self,
        what: &dyn fmt::Display,
        names: [&str; N],
    ) -> Result<[Option<&'a RawValue>; N], Error> {
        let mut picked = [None; N];
        self.pick_into(what, &names, &mut picked)?;
        Ok(picked)
    }

    #[inline(never)]
    fn pick_into(
        &self,
        what: &dyn fmt::Display,
        names: &[&str],
        picked: &mut [Option<&'a RawValue>],
    ) -> Result<(), Error> {
        for (name, value) in &self.0 {
            let Some(index) = names.iter().position(|wanted| wanted == name) else { continue };
            if picked[index].replace(value).is_some() {
                return Err(Error::invalid(format!("{what}: {name:?} stands twice")));
            }
        }
        for value in picked {
            *value = value.filter(|value| value.get() != "null");
        }
        Ok(())
    }
}

/// Borrowed unless it is escaped.
#[derive(Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((Key(key), value)) = map.next_entry()? {
                    entries.push((key, value));
                }
                Ok(entries)
            }
        }

        deserializer.deserialize_map(EntriesVisitor).map(Entries)
    }
}
