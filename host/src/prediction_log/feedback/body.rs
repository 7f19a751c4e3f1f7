//! The forms of a feedback body: an item, a list of items, or an object with a list.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::MAX_ITEMS;
use crate::prediction_log::scalar::Members;

/// The form of a body.
pub(super) enum FeedbackBody<'a> {
    List(List<'a>),
    Item(Members<'a>),
    /// An object with a list and other members, which is invalid.
    Both,
}

/// A list of items. An element that is no object is `None`.
#[derive(Default)]
pub(super) struct List<'a> {
    pub(super) elements: Vec<Option<Members<'a>>>,
    /// Whether there are more than [`MAX_ITEMS`], which are not read.
    pub(super) too_many: bool,
}

impl<'de> Deserialize<'de> for FeedbackBody<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BodyVisitor;
        impl<'de> Visitor<'de> for BodyVisitor {
            type Value = FeedbackBody<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or a list of objects")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<FeedbackBody<'de>, A::Error> {
                ListVisitor.visit_seq(list).map(FeedbackBody::List)
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<FeedbackBody<'de>, A::Error> {
                let (mut list, mut members) = (None, Members::default());
                while let Some(key) = map.next_key::<String>()? {
                    if key == "feedback" {
                        list = Some(map.next_value()?);
                    } else {
                        members.0.push((key.into(), map.next_value()?));
                    }
                }
                Ok(match list {
                    None => FeedbackBody::Item(members),
                    Some(list) if members.0.is_empty() => FeedbackBody::List(list),
                    Some(_) => FeedbackBody::Both,
                })
            }
        }
        deserializer.deserialize_any(BodyVisitor)
    }
}

impl<'de> Deserialize<'de> for List<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListVisitor)
    }
}

struct ListVisitor;

impl<'de> Visitor<'de> for ListVisitor {
    type Value = List<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<List<'de>, A::Error> {
        let mut found = List::default();
        while found.elements.len() < MAX_ITEMS {
            match list.next_element::<Element<'de>>()? {
                Some(Element(element)) => found.elements.push(element),
                None => return Ok(found),
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {
            found.too_many = true;
        }
        Ok(found)
    }
}

/// An element of a list: an object, or `None` for anything else.
struct Element<'a>(Option<Members<'a>>);

impl<'de> Deserialize<'de> for Element<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementVisitor;
        impl<'de> Visitor<'de> for ElementVisitor {
            type Value = Element<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Element<'de>, A::Error> {
                let members = serde::de::value::MapAccessDeserializer::new(map);
                Members::deserialize(members).map(Some).map(Element)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Element<'de>, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Element(None))
            }

            fn visit_unit<E>(self) -> Result<Element<'de>, E> {
                Ok(Element(None))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Element<'de>, E> {
                Ok(Element(None))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Element<'de>, E> {
                Ok(Element(None))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Element<'de>, E> {
                Ok(Element(None))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Element<'de>, E> {
                Ok(Element(None))
            }

            fn visit_str<E>(self, _: &str) -> Result<Element<'de>, E> {
                Ok(Element(None))
            }
        }
        deserializer.deserialize_any(ElementVisitor)
    }
}
