//! What is forgotten together: all answers, those of a component, of a route, of a model.
//!
//! Each has a number, its generation, and the key of an answer holds the sum of those it belongs to, and
//! of a number for their names.
//! To forget is to raise a number: what was kept under the sum before is never found again, and the
//! room it takes goes to what is asked for. Numbers only rise, so that a sum never comes back, and
//! nodes that exchange them agree by taking the greater one, in whatever order they hear of them.
//! They begin at 0; a raised one is the time in microseconds, so that nodes that never met do not
//! raise theirs to the same.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

/// What can be forgotten.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Everything,
    /// By its id.
    Component(String),
    /// By its pattern, as the manifest has it.
    Route(String),
    /// By its name, or as `name/version`.
    Model(String),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("everything"),
            Self::Component(id) => write!(f, "component {id}"),
            Self::Route(pattern) => write!(f, "route {pattern}"),
            Self::Model(name) => write!(f, "model {name}"),
        }
    }
}

/// What an answer belongs to.
#[derive(Clone, Debug, Default)]
pub struct Scopes {
    /// What they are, as a number: the same component under another route is told from this one, as it
    /// is told another path, though their generations may be the same.
    names: u64,
    numbers: Vec<Arc<AtomicU64>>,
}

impl Scopes {
    /// The sum of their generations, from a beginning of their own.
    #[must_use]
    pub fn generation(&self) -> u64 {
        let numbers = self.numbers.iter().map(|number| number.load(Ordering::Relaxed));
        numbers.fold(self.names, u64::wrapping_add)
    }
}

/// By how much another node's clock may be ahead, in microseconds: a day.
const AHEAD: u64 = 24 * 60 * 60 * 1_000_000;

/// Microseconds after 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(0)
}

/// The generations of all there is.
#[derive(Debug, Default)]
pub struct Generations(Mutex<BTreeMap<Scope, Arc<AtomicU64>>>);

impl Generations {
    /// What belongs to all of `scopes`, which are known from now on.
    pub fn scopes(&self, scopes: impl IntoIterator<Item = Scope>) -> Scopes {
        let (mut all, mut hash) = (self.lock(), Sha256::new());
        let number = |scope: Scope| {
            hash.update(format!("{scope}\n"));
            Arc::clone(all.entry(scope).or_default())
        };
        let numbers = scopes.into_iter().map(number).collect();
        let mut names = [0; 8];
        names.copy_from_slice(&hash.finalize()[..8]);
        Scopes { names: u64::from_le_bytes(names), numbers }
    }

    /// Makes another generation of `scope`: its number, or `None` if it is not known.
    pub fn raise(&self, scope: &Scope) -> Option<u64> {
        let number = Arc::clone(self.lock().get(scope)?);
        let now = now();
        // A clock may have been set back, or be behind that of another node.
        let raised = |before: u64| Some(now.max(before.saturating_add(1)));
        let before = number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, raised);
        raised(before.unwrap_or_else(|before| before))
    }

    /// Hears of a number; whether it can be one. After one that no clock gives nothing could be
    /// forgotten any more.
    pub fn join(&self, scope: &Scope, number: u64) -> bool {
        let can_be = number <= now().saturating_add(AHEAD);
        if let Some(known) = self.lock().get(scope).filter(|_| can_be) {
            known.fetch_max(number, Ordering::Relaxed);
        }
        can_be
    }

    /// All of them, in the order of [`known`](Self::known).
    #[must_use]
    pub fn numbers(&self) -> Vec<u64> {
        self.lock().values().map(|number| number.load(Ordering::Relaxed)).collect()
    }

    /// Everything that can be forgotten.
    #[must_use]
    pub fn known(&self) -> Vec<Scope> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Scope, Arc<AtomicU64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> Scope {
        Scope::Model(name.into())
    }

    #[test]
    fn what_is_raised_changes_what_belongs_to_it_and_nothing_else() {
        let all = Generations::default();
        let a = all.scopes([Scope::Everything, model("a"), model("a/1")]);
        let b = all.scopes([Scope::Everything, model("b")]);
        let mut before = (a.generation(), b.generation());
        assert_ne!(before.0, before.1, "they are told from each other");
        for (scope, of_a, of_b) in [
            (model("a/1"), true, false),
            (model("a"), true, false),
            (model("b"), false, true),
            (Scope::Everything, true, true),
            (Scope::Everything, true, true),
        ] {
            assert!(all.raise(&scope).is_some());
            let after = (a.generation(), b.generation());
            assert_eq!((after.0 != before.0, after.1 != before.1), (of_a, of_b), "{scope}");
            before = after;
        }
        assert_eq!(all.raise(&model("c")), None);
    }

    #[test]
    fn nodes_agree_in_whatever_order_they_hear() {
        let nodes = [Generations::default(), Generations::default()];
        let of = nodes.each_ref().map(|node| node.scopes([Scope::Everything, model("a")]));
        nodes[0].raise(&model("a"));
        nodes[1].raise(&Scope::Everything);
        nodes[1].raise(&model("a"));
        let news = nodes.each_ref().map(Generations::numbers);
        for (node, order) in nodes.iter().zip([[0, 1], [1, 0]]) {
            for (scope, number) in
                order.iter().flat_map(|&from| node.known().into_iter().zip(&news[from]))
            {
                assert!(node.join(&scope, *number));
            }
            assert!(node.join(&model("that only others have"), 7));
        }
        assert_eq!(of[0].generation(), of[1].generation());
        assert_eq!(nodes[0].numbers(), nodes[1].numbers());
        assert_eq!(nodes[0].known(), [Scope::Everything, model("a")]);
    }

    #[test]
    fn a_number_no_clock_gives_is_none() {
        let all = Generations::default();
        let scopes = all.scopes([Scope::Everything]);
        let first = scopes.generation();
        for number in [u64::MAX, now() + 2 * AHEAD] {
            assert!(!all.join(&Scope::Everything, number));
        }
        assert_eq!(scopes.generation(), first);
        // A day ahead, and it can be raised still.
        assert!(all.join(&Scope::Everything, now() + AHEAD / 2));
        let before = all.numbers()[0];
        assert_eq!(all.raise(&Scope::Everything), Some(before + 1));
    }
}
