//! SQLite: the databases to which labels of an application are bound, and what every SQLite file of the
//! host has in common.
//!
//! A guest's connection is a thread of its own, which executes one statement after the other
//! ([`SqliteConnection`]). So a slow statement delays no other connection, except those that wait to
//! write into the same database.

mod authorizer;
mod bindings;
mod config;
mod connection;
mod file;
mod session;
mod statement;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use bindings::{Bindings, ComponentDatabases, InitialStatements, unbound};
pub use config::{DatabaseConfig, MAX_FILE, MIN_SIZE, parse};
pub use connection::{Database, SqliteConnection};
pub use file::{CallerLiveness, WaitingCaller, open_file};
pub use rusqlite::types::Value;
pub use statement::QueryResult;

/// Label of the database that exists without a binding, in a file of its own.
pub const DEFAULT: &str = "default";
/// Maximum number of open connections of one component.
const MAX_CONNECTIONS: usize = 64;
/// Maximum number of open connections of all components: each has a thread and three open files.
const MAX_ALL_CONNECTIONS: usize = 256;
/// Maximum number of connections of one component that execute a statement or have a transaction open.
const MAX_ACTIVE: usize = 8;
/// Timeout to open a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum duration of a transaction, and of a statement outside of one.
const MAX_TRANSACTION: Duration = Duration::from_secs(10);
/// Maximum time that a statement waits for a lock of another connection.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum size of a text, a blob or a row, in bytes.
const MAX_VALUE: i32 = 16 << 20;
/// Maximum size of the text of a statement, in bytes.
const MAX_STATEMENT: i32 = 1 << 20;
/// Maximum size of a result, in bytes, each value and each row counted with an overhead.
const MAX_RESULT: usize = 16 << 20;
/// Maximum memory of SQLite in this process, in bytes: that of statements in all databases.
const MAX_MEMORY: i64 = 256 << 20;

/// Why a statement failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SqliteError {
    #[error("the database is full: it has reached max_size, or its file cannot grow")]
    Full,
    #[error("{0}")]
    Failed(String),
}

impl SqliteError {
    fn failed(problem: impl Into<String>) -> Self {
        Self::Failed(problem.into())
    }
}
