//! Feedback that arrived before its record.

use std::collections::{BTreeSet, HashSet};

use rusqlite::Connection;
use uuid::Uuid;

/// Maximum number of cached feedback keys without a record. With more, feedback is looked up for
/// every record.
const MAX_UNMATCHED: usize = 100_000;

/// Keys of feedback whose record is not in the file, but may still arrive.
#[derive(Debug, Default)]
pub(super) struct Unmatched {
    keys: HashSet<(Uuid, u32)>,
    /// Whether there are more than are cached.
    more: bool,
}

impl Unmatched {
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare(
            "SELECT prediction_id, row FROM feedback f WHERE NOT EXISTS
                (SELECT 1 FROM predictions p WHERE p.id = f.prediction_id AND p.row = f.row)
             LIMIT ?1",
        )?;
        let limit = i64::try_from(MAX_UNMATCHED + 1).unwrap_or(i64::MAX);
        let mut rows = statement.query([limit])?;
        let mut unmatched = Self::default();
        while let Some(row) = rows.next()? {
            let id = Uuid::from_slice(row.get_ref(0)?.as_blob()?);
            if let (Ok(id), Ok(row)) = (id, row.get(1)) {
                unmatched.update(&BTreeSet::new(), &[(id, row)].into());
            }
        }
        Ok(unmatched)
    }

    /// Whether there may be feedback for a record.
    pub(super) fn may_contain(&self, id: Uuid, row: u32) -> bool {
        self.more || (!self.keys.is_empty() && self.keys.contains(&(id, row)))
    }

    /// Applies a committed batch: `matched` keys have a record by now, `unmatched` ones have none.
    pub(super) fn update(
        &mut self,
        matched: &BTreeSet<(Uuid, u32)>,
        unmatched: &BTreeSet<(Uuid, u32)>,
    ) {
        for key in matched {
            self.keys.remove(key);
        }
        for key in unmatched {
            if self.keys.len() < MAX_UNMATCHED {
                self.keys.insert(*key);
            } else {
                self.more = true;
            }
        }
    }
}
