//! Purging by generations: of all responses, or those of a component, a route or a model.
//!
//! Each of these scopes has a number, its generation. The key of a response contains the sum of the
//! generations of its scopes, plus a hash of their names:
//!
//! ```text
//! everything           0
//! component iris       0                               before          after
//! route /iris/...      0          generation in keys   h + 0 + 0 + 0   h + 0 + 0 + 1764484812345678
//! model iris           0 -> 1764484812345678           found           never found again; evicted
//! ```
//!
//! A purge raises the generation of one scope. Generations only grow, so an earlier sum never recurs,
//! and nodes that exchange them converge on the maximum of each, in whatever order they receive them.
//! They start at 0, and are raised to the time in microseconds, so that nodes without contact raise
//! them to different numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard};
use sha2::{Digest, Sha256};

/// A set of responses that is purged together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PurgeScope {
    Everything,
    /// The component with this id.
    Component(String),
    /// The route with this pattern, as written in the manifest.
    Route(String),
    /// The model with this name, or `name/version`.
    Model(String),
}

impl fmt::Display for PurgeScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("everything"),
            Self::Component(id) => write!(f, "component {id}"),
            Self::Route(pattern) => write!(f, "route {pattern}"),
            Self::Model(name) => write!(f, "model {name}"),
        }
    }
}

/// The scopes that a response belongs to.
#[derive(Clone, Debug, Default)]
pub struct PurgeScopes {
    /// Hash of their names: responses of a component under two routes differ, since the component
    /// receives different path headers, even while the generations are equal.
    names: u64,
    generations: Vec<Arc<AtomicU64>>,
}

impl PurgeScopes {
    /// The sum of their generations and the hash of their names.
    #[must_use]
    pub fn generation(&self) -> u64 {
        let generations = self.generations.iter().map(|number| number.load(Ordering::Relaxed));
        generations.fold(self.names, u64::wrapping_add)
    }
}

/// Maximum time by which another node's clock may be ahead, in microseconds: a day.
const MAX_CLOCK_SKEW: u64 = 24 * 60 * 60 * 1_000_000;

/// Microseconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(0)
}

/// The generations of all scopes.
#[derive(Debug, Default)]
pub struct Generations(Mutex<BTreeMap<PurgeScope, Arc<AtomicU64>>>);

impl Generations {
    /// The generation of responses that belong to all of `scopes`, which are known from now on.
    pub fn scopes(&self, scopes: impl IntoIterator<Item = PurgeScope>) -> PurgeScopes {
        let (mut all, mut hash) = (self.lock(), Sha256::new());
        let number = |scope: PurgeScope| {
            hash.update(format!("{scope}\n"));
            Arc::clone(all.entry(scope).or_default())
        };
        let generations = scopes.into_iter().map(number).collect();
        let mut names = [0; 8];
        names.copy_from_slice(&hash.finalize()[..8]);
        PurgeScopes { names: u64::from_le_bytes(names), generations }
    }

    /// Raises the generation of `scope`, and returns it; `None` if the scope is not known.
    pub fn raise(&self, scope: &PurgeScope) -> Option<u64> {
        let number = Arc::clone(self.lock().get(scope)?);
        let now = now();
        // The clock may have been set back, or be behind that of another node.
        let raised = |before: u64| Some(now.max(before.saturating_add(1)));
        let before = number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, raised);
        raised(before.unwrap_or_else(|before| before))
    }

    /// Adopts the generation of another node, if it is greater; returns whether it is valid. A number
    /// too far in the future is not: a raise could not exceed it.
    pub fn join(&self, scope: &PurgeScope, number: u64) -> bool {
        let is_valid = number <= now().saturating_add(MAX_CLOCK_SKEW);
        if let Some(known) = self.lock().get(scope).filter(|_| is_valid) {
            known.fetch_max(number, Ordering::Relaxed);
        }
        is_valid
    }

    /// All generations, in the order of [`known`](Self::known).
    #[must_use]
    pub fn numbers(&self) -> Vec<u64> {
        self.lock().values().map(|number| number.load(Ordering::Relaxed)).collect()
    }

    /// All known scopes.
    #[must_use]
    pub fn known(&self) -> Vec<PurgeScope> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PurgeScope, Arc<AtomicU64>>> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> PurgeScope {
        PurgeScope::Model(name.into())
    }

    #[test]
    fn raising_a_scope_changes_only_its_members() {
        let all = Generations::default();
        let a = all.scopes([PurgeScope::Everything, model("a"), model("a/1")]);
        let b = all.scopes([PurgeScope::Everything, model("b")]);
        let mut before = (a.generation(), b.generation());
        assert_ne!(before.0, before.1, "their names differ");
        for (scope, of_a, of_b) in [
            (model("a/1"), true, false),
            (model("a"), true, false),
            (model("b"), false, true),
            (PurgeScope::Everything, true, true),
            (PurgeScope::Everything, true, true),
        ] {
            assert!(all.raise(&scope).is_some());
            let after = (a.generation(), b.generation());
            assert_eq!((after.0 != before.0, after.1 != before.1), (of_a, of_b), "{scope}");
            before = after;
        }
        assert_eq!(all.raise(&model("c")), None);
    }

    #[test]
    fn nodes_converge_in_any_order_of_messages() {
        let nodes = [Generations::default(), Generations::default()];
        let scopes = nodes.each_ref().map(|node| node.scopes([PurgeScope::Everything, model("a")]));
        nodes[0].raise(&model("a"));
        nodes[1].raise(&PurgeScope::Everything);
        nodes[1].raise(&model("a"));
        let sent = nodes.each_ref().map(Generations::numbers);
        for (node, order) in nodes.iter().zip([[0, 1], [1, 0]]) {
            for (scope, number) in
                order.iter().flat_map(|&from| node.known().into_iter().zip(&sent[from]))
            {
                assert!(node.join(&scope, *number));
            }
            assert!(node.join(&model("unknown to this node"), 7));
        }
        assert_eq!(scopes[0].generation(), scopes[1].generation());
        assert_eq!(nodes[0].numbers(), nodes[1].numbers());
        assert_eq!(nodes[0].known(), [PurgeScope::Everything, model("a")]);
    }

    #[test]
    fn generation_too_far_in_the_future_is_refused() {
        let all = Generations::default();
        let scopes = all.scopes([PurgeScope::Everything]);
        let first = scopes.generation();
        for number in [u64::MAX, now() + 2 * MAX_CLOCK_SKEW] {
            assert!(!all.join(&PurgeScope::Everything, number));
        }
        assert_eq!(scopes.generation(), first);
        // Within the clock skew, it can still be raised.
        assert!(all.join(&PurgeScope::Everything, now() + MAX_CLOCK_SKEW / 2));
        let before = all.numbers()[0];
        assert_eq!(all.raise(&PurgeScope::Everything), Some(before + 1));
    }
}
