//! Why a connection or a statement fails.

use std::error::Error;

use tokio_postgres::error::{DbError, ErrorPosition};

/// The library's message for a message that it does not know, or not there.
const UNEXPECTED: &str = "unexpected message from server";

/// Why a connection or a statement failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostgresError {
    /// There is no connection.
    #[error("{0}")]
    Connection(String),
    /// A parameter is invalid.
    #[error("{0}")]
    Parameter(String),
    /// The server returned an error.
    #[error("{}", .0.text)]
    Server(Box<ServerError>),
    /// The statement failed for another reason, and its connection is closed.
    #[error("{0}")]
    Query(String),
    /// A value of the result cannot be passed on.
    #[error("{0}")]
    Value(String),
}

/// An error of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// Severity, message, detail and hint.
    pub text: String,
    pub severity: String,
    /// The SQLSTATE.
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
    /// The other fields, by name.
    pub extras: Vec<(String, String)>,
}

impl PostgresError {
    /// Whether the connection can be used further.
    pub(super) fn leaves_open(&self) -> bool {
        matches!(self, Self::Parameter(_) | Self::Server(_) | Self::Value(_))
    }

    /// The failure of a login.
    pub(super) fn of_login(error: &tokio_postgres::Error) -> Self {
        Self::Connection(describe(error))
    }
}

impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(error) => Self::Server(Box::new(error.into())),
            // The library does not report which.
            None => Self::Query(match describe(&error) {
                text if text == UNEXPECTED => format!("{UNEXPECTED}; COPY is not supported"),
                text => text,
            }),
        }
    }
}

/// The error with its causes.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return error.to_string();
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

impl From<&DbError> for ServerError {
    fn from(error: &DbError) -> Self {
        let position = error.position().map(|position| match position {
            ErrorPosition::Original(at) => at.to_string(),
            ErrorPosition::Internal { position, query } => format!("{position} of {query}"),
        });
        let line = error.line().map(|line| line.to_string());
        let extras = [
            ("column", error.column()),
            ("constraint", error.constraint()),
            ("datatype", error.datatype()),
            ("file", error.file()),
            ("hint", error.hint()),
            ("line", line.as_deref()),
            ("position", position.as_deref()),
            ("routine", error.routine()),
            ("schema", error.schema()),
            ("table", error.table()),
            ("where_", error.where_()),
        ];
        let extras = extras
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        Self {
            text: error.to_string(),
            severity: error.severity().to_owned(),
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            extras: extras.collect(),
        }
    }
}
