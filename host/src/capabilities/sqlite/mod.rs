//! SQLite databases by Spin's interfaces, `spin:sqlite` (`spin_v3`) and `fermyon:spin/sqlite`
//! (`spin_v2`). The databases themselves: [`crate::storage::sqlite`].

mod spin_v2;
mod spin_v3;

use std::sync::Arc;
use std::time::Instant;

use wasmtime::Result;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};

use crate::guest::instance::InstanceState;
use crate::process::memory_budget::MemoryBudget;
use crate::storage::sqlite::{
    ComponentDatabases, Database, QueryResult, SqliteConnection, SqliteError, Value,
};

mod generated {
    wasmtime::component::bindgen!({
        path: ["../wit/spin-sqlite", "../wit/fermyon-spin"],
        inline: "
            package spinfer:host;
            world sqlite {
                import spin:sqlite/sqlite@3.1.0;
                import fermyon:spin/sqlite@2.0.0;
            }
        ",
        world: "spinfer:host/sqlite",
        imports: {
            "spin:sqlite/sqlite.[static]connection.open": async | trappable,
            "spin:sqlite/sqlite.[method]connection.execute": async | trappable,
            "fermyon:spin/sqlite.[drop]connection": trappable,
            "fermyon:spin/sqlite": async | trappable,
            default: trappable,
        },
        with: {
            "spin:sqlite/sqlite.connection": super::SqliteHandle,
            "fermyon:spin/sqlite.connection": super::SqliteHandle,
        },
    });
}

use generated::fermyon::spin::sqlite as fermyon;
use generated::spin::sqlite::sqlite as spin;

/// Maximum number of connections that an instance has open: each has a thread.
const MAX_OPEN: usize = 16;

/// A guest's handle to a connection.
#[derive(Debug)]
pub struct SqliteHandle {
    connection: Arc<SqliteConnection>,
    _open: Arc<()>,
}

/// The SQLite state of an instance.
#[derive(Debug)]
pub struct SqliteCtx {
    databases: Arc<ComponentDatabases>,
    /// Cloned for each open connection.
    open: Arc<()>,
    memory: MemoryBudget,
}

impl SqliteCtx {
    #[must_use]
    pub fn new(databases: Arc<ComponentDatabases>, memory: MemoryBudget) -> Self {
        Self { databases, open: Arc::default(), memory }
    }
}

/// The SQLite state of an instance, borrowed for one call.
#[derive(Debug)]
pub struct SqliteView<'a> {
    pub ctx: &'a mut SqliteCtx,
    pub table: &'a mut ResourceTable,
    /// Deadline of the request.
    pub deadline: Instant,
}

/// Why a database cannot be opened.
enum OpenError {
    AccessDenied,
    Failed(SqliteError),
}

/// A connection that is about to be opened: it counts already.
struct Opening {
    databases: Arc<ComponentDatabases>,
    database: Arc<Database>,
    open: Arc<()>,
}

impl Opening {
    async fn connect(self) -> Result<SqliteHandle, OpenError> {
        let connection = self.databases.connect(&self.database).await.map_err(OpenError::Failed)?;
        Ok(SqliteHandle { connection: Arc::new(connection), _open: self.open })
    }
}

/// A statement that is about to be executed.
struct Execution {
    connection: Arc<SqliteConnection>,
    deadline: Instant,
    memory: MemoryBudget,
}

impl Execution {
    async fn run(
        self,
        statement: String,
        parameters: impl Iterator<Item = Value>,
    ) -> Result<QueryResult, SqliteError> {
        let parameters = parameters.collect();
        self.connection.execute(statement, parameters, self.deadline, self.memory).await
    }
}

impl SqliteView<'_> {
    fn opening(&self, label: &str) -> Result<Opening, OpenError> {
        let database = self.ctx.databases.get(label).ok_or(OpenError::AccessDenied)?;
        if Arc::strong_count(&self.ctx.open) > MAX_OPEN {
            return Err(too_many());
        }
        let (databases, open) = (Arc::clone(&self.ctx.databases), Arc::clone(&self.ctx.open));
        Ok(Opening { databases, database: Arc::clone(database), open })
    }

    fn insert(&mut self, handle: SqliteHandle) -> Result<Resource<SqliteHandle>, OpenError> {
        self.table.push(handle).map_err(|_| too_many())
    }

    fn connection(&self, handle: &Resource<SqliteHandle>) -> Result<Arc<SqliteConnection>> {
        Ok(Arc::clone(&self.table.get(handle)?.connection))
    }

    fn execution(&self, handle: &Resource<SqliteHandle>) -> Result<Execution> {
        let connection = self.connection(handle)?;
        Ok(Execution { connection, deadline: self.deadline, memory: self.ctx.memory.clone() })
    }
}

fn too_many() -> OpenError {
    OpenError::Failed(SqliteError::Failed(format!(
        "this instance has too many connections open (at most {MAX_OPEN}), or too many handles: drop \
         some"
    )))
}

/// Conversions from and to the types of an interface: those of both have the same shape.
macro_rules! convert_types {
    ($interface:ident) => {
        impl From<OpenError> for $interface::Error {
            fn from(error: OpenError) -> Self {
                match error {
                    OpenError::AccessDenied => Self::AccessDenied,
                    OpenError::Failed(error) => error.into(),
                }
            }
        }

        impl From<SqliteError> for $interface::Error {
            fn from(error: SqliteError) -> Self {
                match error {
                    SqliteError::Full => Self::DatabaseFull,
                    SqliteError::Failed(problem) => Self::Io(problem),
                }
            }
        }

        impl From<$interface::Value> for Value {
            fn from(value: $interface::Value) -> Self {
                match value {
                    $interface::Value::Integer(number) => Self::Integer(number),
                    $interface::Value::Real(number) => Self::Real(number),
                    $interface::Value::Text(text) => Self::Text(text),
                    $interface::Value::Blob(bytes) => Self::Blob(bytes),
                    $interface::Value::Null => Self::Null,
                }
            }
        }

        impl From<Value> for $interface::Value {
            fn from(value: Value) -> Self {
                match value {
                    Value::Integer(number) => Self::Integer(number),
                    Value::Real(number) => Self::Real(number),
                    Value::Text(text) => Self::Text(text),
                    Value::Blob(bytes) => Self::Blob(bytes),
                    Value::Null => Self::Null,
                }
            }
        }

        impl From<Vec<Value>> for $interface::RowResult {
            fn from(values: Vec<Value>) -> Self {
                Self { values: values.into_iter().map(Into::into).collect() }
            }
        }

        impl From<QueryResult> for $interface::QueryResult {
            fn from(result: QueryResult) -> Self {
                let (columns, rows, _charge) = result.into_parts();
                Self { columns, rows: rows.into_iter().map(Into::into).collect() }
            }
        }
    };
}

convert_types!(spin);
convert_types!(fermyon);

struct HasSqlite;

impl HasData for HasSqlite {
    type Data<'a> = SqliteView<'a>;
}

/// Adds the SQLite interfaces of Spin to `linker`.
///
/// # Errors
/// The linker already defines one of them.
pub fn add_to_linker(linker: &mut Linker<InstanceState>) -> Result<()> {
    spin::add_to_linker::<_, HasSqlite>(linker, InstanceState::sqlite)?;
    fermyon::add_to_linker::<_, HasSqlite>(linker, InstanceState::sqlite)
}
