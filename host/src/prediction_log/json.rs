//! Writes the JSON of a record, on the writer's thread.
//!
//! Numbers have the shortest form that parses to the same value, and integers are exact. NaN and
//! the infinities, which JSON lacks, are `null`.

use std::sync::Arc;

use serde::Serialize;
use smallvec::SmallVec;

use super::names::Names;
use super::record::{ColumnValues, Columns};

/// Names of columns as JSON keys: `"a":`, `"b":` ...
type Keys = Arc<[Vec<u8>]>;

/// The keys of the names that were written last.
#[derive(Debug, Default)]
pub(super) struct KnownKeys(Vec<(Names, Keys)>);

impl KnownKeys {
    fn of(&mut self, names: &Names) -> Keys {
        /// Maximum number of lists. Each instance has its own.
        const MAX: usize = 256;
        if let Some((_, keys)) = self.0.iter().find(|(known, _)| known.is(names)) {
            return Arc::clone(keys);
        }
        let key = |name: &String| {
            let mut key = Vec::with_capacity(name.len() + 3);
            write(name, &mut key);
            key.push(b':');
            key
        };
        let keys: Keys = names.iter().map(key).collect();
        if self.0.len() >= MAX {
            self.0.clear();
        }
        self.0.push((names.clone(), Arc::clone(&keys)));
        keys
    }
}

/// Blocks of columns with their keys.
#[derive(Debug)]
pub(super) struct RowNames<'a> {
    blocks: SmallVec<[(Keys, &'a ColumnValues); 8]>,
}

impl<'a> RowNames<'a> {
    pub(super) fn new(blocks: &'a [Columns], known: &mut KnownKeys) -> Self {
        let block = |columns: &'a Columns| (known.of(&columns.names), &columns.values);
        Self { blocks: blocks.iter().map(block).collect() }
    }

    /// Writes row `index` as a JSON object, replacing the contents of `into`. A value beyond the
    /// end of its block is `null`.
    pub(super) fn write(&self, index: usize, into: &mut Vec<u8>) {
        into.clear();
        into.push(b'{');
        for (keys, values) in &self.blocks {
            let first = index * keys.len();
            for (column, key) in keys.iter().enumerate() {
                if into.len() > 1 {
                    into.push(b',');
                }
                into.extend_from_slice(key);
                value(values, first + column, into);
            }
        }
        into.push(b'}');
    }
}

fn value(values: &ColumnValues, at: usize, into: &mut Vec<u8>) {
    match values {
        ColumnValues::Fp32(values) => write(&values.get(at), into),
        ColumnValues::Fp64(values) => write(&values.get(at), into),
        ColumnValues::Int64(values) => write(&values.get(at), into),
        ColumnValues::Boolean(values) => write(&values.get(at), into),
        ColumnValues::Text(values) => write(&values.get(at), into),
    }
}

/// Writes `pairs` as a JSON object, replacing the contents of `into`. Of equal names the last one
/// wins.
pub(super) fn object(pairs: &[(String, String)], into: &mut Vec<u8>) {
    into.clear();
    into.push(b'{');
    for (index, (key, value)) in pairs.iter().enumerate() {
        if pairs[index + 1..].iter().any(|(later, _)| later == key) {
            continue;
        }
        if into.len() > 1 {
            into.push(b',');
        }
        write(key, into);
        into.push(b':');
        write(value, into);
    }
    into.push(b'}');
}

/// Writes `texts` as a JSON array, replacing the contents of `into`.
pub(super) fn array(texts: &[String], into: &mut Vec<u8>) {
    into.clear();
    write(&texts, into);
}

/// Appends `value` as JSON.
pub(super) fn write(value: &(impl Serialize + ?Sized), into: &mut Vec<u8>) {
    let length = into.len();
    // Numbers, texts and lists of them serialize, and writing to memory does not fail.
    if serde_json::to_writer(&mut *into, value).is_err() {
        into.truncate(length);
        into.extend_from_slice(b"null");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::scalar::{Members, Scalar};
    use super::*;

    fn columns(names: &[&str], values: ColumnValues) -> Columns {
        Columns { names: names.iter().map(|&name| name.to_owned()).collect(), values }
    }

    fn row(blocks: &[Columns], index: usize) -> String {
        let mut text = Vec::new();
        RowNames::new(blocks, &mut KnownKeys::default()).write(index, &mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn row_is_an_object_with_the_shortest_numbers() {
        let blocks = [
            columns(&["a", "b"], ColumnValues::Fp32(vec![5.1, f32::NAN, 0.1, 1e-30])),
            columns(&["c"], ColumnValues::Fp64(vec![0.1, f64::INFINITY])),
            columns(&["d"], ColumnValues::Int64(vec![i64::MIN, 9_007_199_254_740_993])),
            columns(&["e"], ColumnValues::Boolean(vec![true, false])),
            columns(&["\"f\"\n"], ColumnValues::Text(vec!["é\"".into(), String::new()])),
        ];
        let expected = concat!(
            r#"{"a":5.1,"b":null,"c":0.1,"d":-9223372036854775808,"#,
            r#""e":true,"\"f\"\n":"é\""}"#
        );
        assert_eq!(row(&blocks, 0), expected);
        let expected = concat!(
            r#"{"a":0.1,"b":1e-30,"c":null,"d":9007199254740993,"#,
            r#""e":false,"\"f\"\n":""}"#
        );
        assert_eq!(row(&blocks, 1), expected);
        assert_eq!(row(&blocks[..1], 2), r#"{"a":null,"b":null}"#, "beyond the block");
        assert_eq!(row(&[], 0), "{}");
    }

    #[test]
    fn keys_are_those_of_the_names_however_many_lists_there_are() {
        let mut known = KnownKeys::default();
        for number in 0..1000 {
            let name = format!("n{}", number % 300);
            let block = [columns(&[&name], ColumnValues::Int64(vec![number]))];
            let mut text = Vec::new();
            for _ in 0..2 {
                RowNames::new(&block, &mut known).write(0, &mut text);
                assert_eq!(text, format!("{{\"{name}\":{number}}}").into_bytes());
            }
        }
        assert!(known.0.len() <= 256);
    }

    #[test]
    fn last_attribute_of_equal_names_wins() {
        let pairs = [("a", "1"), ("b", "2"), ("a", "3")];
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut text = Vec::new();
        object(&pairs, &mut text);
        assert_eq!(text, br#"{"b":"2","a":"3"}"#);
    }

    proptest! {
        #[test]
        fn values_are_read_back_exactly(
            single in any::<f32>(), double in any::<f64>(), int in any::<i64>(), text in ".{0,20}",
        ) {
            let blocks = [
                columns(&["s"], ColumnValues::Fp32(vec![single])),
                columns(&["d"], ColumnValues::Fp64(vec![double])),
                columns(&["i"], ColumnValues::Int64(vec![int])),
                columns(&["t"], ColumnValues::Text(vec![text.clone()])),
            ];
            let written = row(&blocks, 0);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&written).is_ok());
            let read = Members::of(&written);
            let number = |value: f64, is_finite| {
                Some(if is_finite { Scalar::Number(value) } else { Scalar::Null })
            };
            if let Some(Scalar::Number(back)) = read.get("s") {
                #[expect(clippy::cast_possible_truncation, reason = "it is single precision")]
                let back = *back as f32;
                prop_assert_eq!(back, single);
            } else {
                prop_assert_eq!(read.get("s").cloned(), number(0.0, false));
                prop_assert!(!single.is_finite());
            }
            prop_assert_eq!(read.get("d").cloned(), number(double, double.is_finite()));
            prop_assert_eq!(read.get("i"), Some(&Scalar::Integer(int)));
            prop_assert_eq!(read.get("t"), Some(&Scalar::Text(text.into())));
        }
    }
}
