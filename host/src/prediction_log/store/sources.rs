//! Sources: what all records of one model, route and variant have in common, stored once.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use rusqlite::Transaction;

/// Maximum number of sources whose number in the file is cached.
const MAX_SOURCES: usize = 10_000;

/// Model, version, route, component, experiment and variant; the last two are empty without an experiment.
pub(in crate::prediction_log) type SourceKey<'a> = [&'a str; 6];

/// Cache of the numbers of sources.
#[derive(Debug, Default)]
pub(in crate::prediction_log) struct Sources {
    hasher: RandomState,
    numbers: HashMap<u64, Vec<([String; 6], i64)>>,
    count: usize,
}

impl Sources {
    /// The number of the source `key`, which is added to the file if necessary.
    pub(in crate::prediction_log) fn number(
        &mut self,
        transaction: &Transaction<'_>,
        key: SourceKey<'_>,
    ) -> rusqlite::Result<i64> {
        let hash = self.hasher.hash_one(key);
        let known = self.numbers.get(&hash);
        if let Some((_, number)) = known.iter().flat_map(|all| *all).find(|(k, _)| *k == key) {
            return Ok(*number);
        }
        let mut statement = transaction.prepare_cached(
            "INSERT OR IGNORE INTO sources (model, version, route, component, experiment, variant)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        statement.execute(key)?;
        let mut statement = transaction.prepare_cached(
            "SELECT id FROM sources WHERE model = ?1 AND version = ?2 AND route = ?3
             AND component = ?4 AND experiment = ?5 AND variant = ?6",
        )?;
        let number = statement.query_row(key, |row| row.get(0))?;
        if self.count >= MAX_SOURCES {
            self.numbers.clear();
            self.count = 0;
        }
        self.count += 1;
        self.numbers.entry(hash).or_default().push((key.map(str::to_owned), number));
        Ok(number)
    }
}
