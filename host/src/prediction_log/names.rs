//! Names that the records of a model have in common: they share one copy of each.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name or the version of a model.
#[derive(Clone, PartialEq, Eq)]
pub struct Name(Arc<str>);

/// The names of columns of one datatype.
#[derive(Clone)]
pub struct Names(Arc<[String]>);

impl Names {
    /// Whether both are the same list in memory.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl PartialEq for Names {
    fn eq(&self, other: &Self) -> bool {
        self.is(other) || self.0 == other.0
    }
}

impl<S: AsRef<str>> PartialEq<[S]> for Names {
    fn eq(&self, other: &[S]) -> bool {
        self.0.iter().map(String::as_str).eq(other.iter().map(AsRef::as_ref))
    }
}

impl<S: AsRef<str>, const N: usize> PartialEq<[S; N]> for Names {
    fn eq(&self, other: &[S; N]) -> bool {
        *self == other[..]
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Deref for Names {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl<'a> IntoIterator for &'a Names {
    type Item = &'a String;
    type IntoIter = std::slice::Iter<'a, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl FromIterator<String> for Names {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        Self(names.into_iter().collect())
    }
}

impl From<Vec<String>> for Names {
    fn from(names: Vec<String>) -> Self {
        Self(names.into())
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for Name {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::from)
    }
}

/// Maximum number of names and of lists that are kept: a model has few.
const MAX_KNOWN: usize = 32;
/// Maximum length of each, in bytes.
const MAX_KNOWN_BYTES: usize = 16 << 10;

/// The names that were used before, so that each prediction does not bring its own copies.
#[derive(Debug, Default)]
pub struct KnownNames {
    names: Vec<Name>,
    lists: Vec<Names>,
}

impl KnownNames {
    /// The copy of `name` that all with the same `shared` names have.
    pub fn name(&mut self, name: &str, shared: &Mutex<Self>) -> Name {
        match find_name(&self.names, name) {
            Some(known) => known,
            None => add(&mut self.names, shared.lock().own_name(name), name.len()),
        }
    }

    /// The copy of a list of names that all with the same `shared` names have.
    pub fn list<S: AsRef<str>>(&mut self, names: &[S], shared: &Mutex<Self>) -> Names {
        match find_list(&self.lists, names) {
            Some(known) => known,
            None => add(&mut self.lists, shared.lock().own_list(names), bytes(names)),
        }
    }

    fn own_name(&mut self, name: &str) -> Name {
        match find_name(&self.names, name) {
            Some(known) => known,
            None => add(&mut self.names, name.into(), name.len()),
        }
    }

    fn own_list<S: AsRef<str>>(&mut self, names: &[S]) -> Names {
        let own = || names.iter().map(|name| name.as_ref().to_owned()).collect();
        match find_list(&self.lists, names) {
            Some(known) => known,
            None => add(&mut self.lists, own(), bytes(names)),
        }
    }
}

fn find_name(known: &[Name], name: &str) -> Option<Name> {
    known.iter().find(|known| ***known == *name).cloned()
}

fn find_list<S: AsRef<str>>(known: &[Names], names: &[S]) -> Option<Names> {
    known.iter().find(|known| **known == *names).cloned()
}

fn bytes<S: AsRef<str>>(names: &[S]) -> usize {
    names.iter().map(|name| size_of::<String>() + name.as_ref().len()).sum()
}

/// Adds `new` of `bytes` bytes to what is known, unless it is too long. Starts anew at the maximum: a guest
/// with that many does not repeat them.
fn add<T: Clone>(known: &mut Vec<T>, new: T, bytes: usize) -> T {
    if bytes <= MAX_KNOWN_BYTES {
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.push(new.clone());
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_share_one_copy() {
        let shared = Mutex::default();
        let (mut one, mut other) = (KnownNames::default(), KnownNames::default());
        let first = one.list(&["a", "b"], &shared);
        assert!(one.list(&["a", "b"], &shared).is(&first));
        assert!(other.list(&["a", "b"], &shared).is(&first), "another instance");
        for names in [&["b", "a"][..], &["a"], &["a", "b", "c"], &["ab"], &[]] {
            let list = one.list(names, &shared);
            assert!(!list.is(&first) && list != first && list == *names, "{names:?}");
        }
        let (one, other) = (one.name("iris", &shared), other.name("iris", &shared));
        assert!(Arc::ptr_eq(&one.0, &other.0));
        assert_eq!(&*one, "iris");
    }

    #[test]
    fn what_is_known_is_bounded() {
        let shared = Mutex::default();
        let mut known = KnownNames::default();
        let mut use_name = |name: &str| {
            assert_eq!(*known.name(name, &shared), *name);
            assert_eq!(known.list(&[name], &shared), [name][..]);
        };
        (0..10 * MAX_KNOWN).for_each(|number| use_name(&number.to_string()));
        use_name(&"x".repeat(MAX_KNOWN_BYTES + 1));
        for KnownNames { names, lists } in [known, shared.into_inner()] {
            assert!(names.len() <= MAX_KNOWN && lists.len() <= MAX_KNOWN);
            assert!(names.iter().all(|name| name.len() <= MAX_KNOWN_BYTES));
            assert!(lists.iter().flatten().all(|name| name.len() <= MAX_KNOWN_BYTES));
        }
    }

    #[test]
    fn names_are_serialized_as_texts() {
        let names = Names::from(vec!["a".to_owned(), "é".to_owned()]);
        let text = serde_json::to_string(&(&names, Name::from("m"))).unwrap();
        assert_eq!(text, r#"[["a","é"],"m"]"#);
        let (read, name): (Names, Name) = serde_json::from_str(&text).unwrap();
        assert_eq!((read, &*name), (names, "m"));
    }
}
