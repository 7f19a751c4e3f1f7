//! Why a request fails because of the prediction log. A leaf.

/// Why the records of a request were not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unlogged {
    #[error("its queue is full{}", because(problem.as_deref()))]
    QueueFull { problem: Option<String> },
    #[error("it cannot be written: {0}")]
    Storage(String),
    /// Known before the component was called.
    #[error("it cannot be written, and so the component was not called: {0}")]
    Unwritable(String),
    #[error("they were not written before the deadline")]
    Late,
    #[error("the host is shutting down")]
    Shutdown,
}

fn because(problem: Option<&str>) -> String {
    problem.map(|problem| format!(", as it cannot be written: {problem}")).unwrap_or_default()
}

impl Unlogged {
    /// The reasons, as metrics and statistics name them.
    pub const REASONS: [&str; 5] = ["queue_full", "storage", "unwritable", "late", "shutdown"];

    /// The index of its reason.
    pub(super) fn index(&self) -> usize {
        match self {
            Self::QueueFull { .. } => 0,
            Self::Storage(_) => 1,
            Self::Unwritable(_) => 2,
            Self::Late => 3,
            Self::Shutdown => 4,
        }
    }
}
