//! How the host opens a SQLite file, and whether the caller of an operation on a thread still waits.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Result};

/// Opens the file at `path`, which will not grow beyond `max_size` bytes. An absent file is created if
/// `create` is set.
///
/// # Errors
/// It cannot be opened, or is not a database.
pub fn open_file(
    path: &Path,
    max_size: u64,
    busy_timeout: Duration,
    create: bool,
) -> Result<Connection> {
    // Without SQLITE_OPEN_URI: a path is a path.
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(busy_timeout)?;
    // WAL: reads do not block on writes. A write survives a crash of this process at once, and one of
    // the machine after the next checkpoint.
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    let page: u32 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let pages = u32::try_from(max_size / u64::from(page)).unwrap_or(u32::MAX);
    connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    Ok(connection)
}

/// The caller's half: dropped with the future that waits for an operation.
#[derive(Debug)]
pub struct WaitingCaller {
    _waiting: Arc<()>,
}

/// The thread's half: whether the caller of an operation still waits for its result.
#[derive(Clone, Debug)]
pub struct CallerLiveness(Weak<()>);

impl WaitingCaller {
    #[must_use]
    pub fn new() -> (Self, CallerLiveness) {
        let waiting = Arc::new(());
        let liveness = CallerLiveness(Arc::downgrade(&waiting));
        (Self { _waiting: waiting }, liveness)
    }
}

impl CallerLiveness {
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.0.strong_count() > 0
    }
}
