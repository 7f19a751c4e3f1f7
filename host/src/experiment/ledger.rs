//! The journal of an experiment, and the changes that it records. Both are in the router's key-value
//! store, so every node shows the same, and they survive restarts.
//!
//! A change carries its own event. The event is appended to the journal after the change was swapped
//! in, and again before the next change is, unless it is there: a node that dies between the two
//! writes loses no entry.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde::de::DeserializeOwned;
use spinfer_experiment::progress::{Event, EventKind};
use spinfer_experiment::{Change, Experiment, key};
use tracing::info;

use crate::storage::key_value::{GrantedStore, StoreError};

/// Maximum number of entries of a journal.
pub const MAX_ENTRIES: usize = 500;
/// Attempts to append to a list that other nodes append to.
const ATTEMPTS: usize = 20;

/// The actor of an operator's events.
pub const OPERATOR: &str = "operator";

/// Milliseconds of Unix time.
pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// An event at this moment.
pub(super) fn event(actor: &str, kind: EventKind, detail: String) -> Event {
    Event { change: 0, time: now(), actor: actor.to_owned(), kind, detail }
}

/// Replaces the stored change of `experiment`, which was `seen` and read as `before`, by `after` with
/// its `event`. Returns the stored form of the change; `None` if another was stored meanwhile.
///
/// # Errors
/// The store fails.
pub(super) async fn commit(
    store: &GrantedStore,
    experiment: &Experiment,
    (seen, before): (Option<Vec<u8>>, &Change),
    after: Change,
    event: Event,
) -> Result<Option<Change>, StoreError> {
    let name = &experiment.name;
    if let Some(earlier) = &before.event {
        record(store, name, earlier).await?;
    }
    let after = after.after(before, experiment, event);
    if !store.swap(key(name), seen, to_json(&after)?).await? {
        return Ok(None);
    }
    if let Some(event) = &after.event {
        let Event { actor, kind, detail, .. } = event;
        info!(experiment = name, actor, event = kind.name(), detail, "experiment changed");
        record(store, name, event).await?;
    }
    Ok(Some(after))
}

/// The journal of an experiment, oldest first.
///
/// # Errors
/// The store fails.
pub async fn journal(store: &GrantedStore, experiment: &str) -> Result<Vec<Event>, StoreError> {
    let stored = store.get(journal_key(experiment)).await?;
    Ok(parse_list(stored.as_deref()))
}

/// Appends `event` to the journal, unless it is there.
///
/// # Errors
/// The store fails, or other nodes append without end.
pub(super) async fn record(
    store: &GrantedStore,
    experiment: &str,
    event: &Event,
) -> Result<(), StoreError> {
    update(store, journal_key(experiment), |entries: &mut Vec<Event>| {
        let recent = entries.iter().rev().find(|entry| entry.kind == event.kind);
        let is_known = match event.kind {
            // Another node has come to the same verdict.
            EventKind::Verdict => recent.is_some_and(|entry| head(entry) == head(event)),
            _ => entries.iter().any(|entry| {
                entry.kind != EventKind::Verdict && entry.change == event.change && entry == event
            }),
        };
        if is_known {
            return false;
        }
        entries.push(event.clone());
        trim(entries);
        true
    })
    .await
}

/// Removes the oldest entries beyond [`MAX_ENTRIES`]. The newest entry of each kind stays, which tells
/// how the experiment came into its present state, and so do rollbacks: only a journal of nothing else
/// loses its oldest ones.
fn trim(entries: &mut Vec<Event>) {
    let excess = entries.len().saturating_sub(MAX_ENTRIES);
    let is_older =
        |index: &usize| entries[index + 1..].iter().any(|later| later.kind == entries[*index].kind);
    let older = (0..entries.len()).filter(is_older);
    let (rollbacks, others): (Vec<usize>, Vec<usize>) =
        older.partition(|index| entries[*index].kind == EventKind::RolledBack);
    let removed: BTreeSet<usize> = others.into_iter().chain(rollbacks).take(excess).collect();
    let mut index = 0..;
    entries.retain(|_| index.next().is_some_and(|index| !removed.contains(&index)));
}

/// The verdict without its numbers, which differ from node to node: `winner treatment`.
fn head(event: &Event) -> Option<&str> {
    event.detail.split(':').next()
}

/// Changes the stored list at `key` with `change`, which returns whether it has changed it.
///
/// # Errors
/// As [`record`].
pub(super) async fn update<T: Serialize + DeserializeOwned>(
    store: &GrantedStore,
    key: String,
    change: impl Fn(&mut Vec<T>) -> bool,
) -> Result<(), StoreError> {
    for _ in 0..ATTEMPTS {
        let stored = store.get(key.clone()).await?;
        let mut list = parse_list(stored.as_deref());
        if !change(&mut list) || store.swap(key.clone(), stored, to_json(&list)?).await? {
            return Ok(());
        }
    }
    Err(StoreError(format!("`{key}` was changed concurrently {ATTEMPTS} times")))
}

/// A stored list. One that cannot be read is replaced.
pub(super) fn parse_list<T: DeserializeOwned>(json: Option<&[u8]>) -> Vec<T> {
    json.and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default()
}

fn journal_key(experiment: &str) -> String {
    format!("{}/journal", key(experiment))
}

/// The stored form of `value`.
pub(super) fn to_json(value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError(error.to_string()))
}
