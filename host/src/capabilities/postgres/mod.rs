//! Outbound PostgreSQL: `spin:postgres` (`spin_v4` and `spin_v3`) and `fermyon:spin/postgres` (`spin_v2`, and
//! `spin_v1` of Spin 1), to the servers that `allowed_outbound_hosts` grants. The connections themselves:
//! [`crate::storage::postgres`].

mod spin_v1;
mod spin_v2;
mod spin_v3;
mod spin_v4;

use std::sync::Arc;
use std::time::Instant;

use wasmtime::Result;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};

use crate::config::outbound_hosts::OutboundHosts;
use crate::guest::instance::InstanceState;
use crate::process::memory_budget::{Charge, MemoryBudget};
use crate::storage::postgres::{
    CaRoot, ComponentPostgres, PostgresAddress, PostgresConnection, PostgresError, PostgresValue,
    ResultSet, SCHEME,
};

mod generated {
    wasmtime::component::bindgen!({
        path: ["../wit/spin-postgres", "../wit/spin-postgres-3", "../wit/fermyon-spin"],
        inline: "
            package spinfer:host;
            world postgres {
                import spin:postgres/postgres@4.2.0;
                import spin:postgres/postgres@3.0.0;
                import fermyon:spin/postgres@2.0.0;
            }
        ",
        world: "spinfer:host/postgres",
        imports: {
            "spin:postgres/postgres.[static]connection.open": async | trappable,
            "spin:postgres/postgres.[method]connection.query": async | trappable,
            "spin:postgres/postgres.[method]connection.execute": async | trappable,
            "spin:postgres/postgres.[method]connection-builder.build": async | trappable,
            "fermyon:spin/postgres.[drop]connection": trappable,
            "fermyon:spin/postgres": async | trappable,
            default: trappable,
        },
        with: {
            "spin:postgres/postgres@4.2.0.connection": super::PostgresHandle,
            "spin:postgres/postgres@4.2.0.connection-builder": super::PostgresBuilder,
            "spin:postgres/postgres@3.0.0.connection": super::PostgresHandle,
            "fermyon:spin/postgres.connection": super::PostgresHandle,
        },
    });
}

use generated::fermyon::spin::{postgres as fermyon, rdbms_types};
use generated::spin::postgres3_0_0::postgres as v3;
use generated::spin::postgres4_2_0::postgres as v4;

/// A guest's handle to a connection.
#[derive(Debug)]
pub struct PostgresHandle(Arc<PostgresConnection>);

/// A connection that a guest is about to open.
#[derive(Debug)]
pub struct PostgresBuilder {
    /// The address, or what is wrong with it.
    address: Result<PostgresAddress, String>,
    ca_root: Option<(CaRoot, Charge)>,
}

/// The outbound PostgreSQL state of an instance.
#[derive(Debug)]
pub struct PostgresCtx {
    connections: Arc<ComponentPostgres>,
    memory: MemoryBudget,
}

impl PostgresCtx {
    #[must_use]
    pub fn new(connections: Arc<ComponentPostgres>, memory: MemoryBudget) -> Self {
        Self { connections, memory }
    }
}

/// The outbound PostgreSQL state of an instance, borrowed for one call.
#[derive(Debug)]
pub struct PostgresView<'a> {
    pub ctx: &'a mut PostgresCtx,
    pub allowed: &'a OutboundHosts,
    pub table: &'a mut ResourceTable,
    /// Deadline of the request.
    pub deadline: Instant,
}

/// A connection that is granted, and not opened yet.
struct ConnectionAttempt {
    connections: Arc<ComponentPostgres>,
    address: PostgresAddress,
    ca_root: Option<CaRoot>,
    memory: MemoryBudget,
}

impl ConnectionAttempt {
    async fn connect(self) -> Result<PostgresHandle, PostgresError> {
        let Self { connections, address, ca_root, memory } = self;
        let connection = connections.connect(&address, ca_root.as_ref(), &memory).await?;
        Ok(PostgresHandle(Arc::new(connection)))
    }
}

/// A statement that is about to be executed.
struct StatementCall {
    connection: Arc<PostgresConnection>,
    deadline: Instant,
}

impl StatementCall {
    async fn query(
        self,
        statement: String,
        parameters: impl IntoIterator<Item = impl Into<PostgresValue>>,
    ) -> Result<ResultSet, PostgresError> {
        let parameters = parameters.into_iter().map(Into::into).collect();
        self.connection.query(statement, parameters, self.deadline).await
    }

    async fn execute(
        self,
        statement: String,
        parameters: impl IntoIterator<Item = impl Into<PostgresValue>>,
    ) -> Result<u64, PostgresError> {
        let parameters = parameters.into_iter().map(Into::into).collect();
        self.connection.execute(statement, parameters, self.deadline).await
    }
}

impl PostgresView<'_> {
    /// An attempt to connect to an address as guests write it.
    fn attempt(&self, address: &str) -> Result<ConnectionAttempt, PostgresError> {
        let address = PostgresAddress::parse(address).map_err(PostgresError::Connection)?;
        self.granted(address, None)
    }

    /// An attempt, if each server of the address is granted.
    fn granted(
        &self,
        address: PostgresAddress,
        ca_root: Option<CaRoot>,
    ) -> Result<ConnectionAttempt, PostgresError> {
        for server in &address.servers {
            let (host, port) = (&server.host, server.port);
            if !self.allowed.allows(SCHEME, host, Some(port)) {
                return Err(PostgresError::Connection(format!(
                    "{SCHEME}://{host}:{port} is not in allowed_outbound_hosts"
                )));
            }
        }
        let PostgresCtx { connections, memory } = &*self.ctx;
        let (connections, memory) = (Arc::clone(connections), memory.clone());
        Ok(ConnectionAttempt { connections, address, ca_root, memory })
    }

    async fn open_handle(
        &mut self,
        attempt: Result<ConnectionAttempt, PostgresError>,
    ) -> Result<Resource<PostgresHandle>, PostgresError> {
        let handle = attempt?.connect().await?;
        self.insert(handle)
    }

    fn insert(
        &mut self,
        handle: PostgresHandle,
    ) -> Result<Resource<PostgresHandle>, PostgresError> {
        self.table.push(handle).map_err(|_| {
            PostgresError::Connection("this instance has too many handles: drop some".into())
        })
    }

    fn statement(&self, handle: &Resource<PostgresHandle>) -> Result<StatementCall> {
        let PostgresHandle(connection) = self.table.get(handle)?;
        Ok(StatementCall { connection: Arc::clone(connection), deadline: self.deadline })
    }
}

/// Conversions to the types of an interface whose values are some of those of the newest.
macro_rules! convert_results {
    ($interface:ident, [$($kind:ident),+]) => {
        impl From<PostgresValue> for $interface::DbValue {
            fn from(value: PostgresValue) -> Self {
                match value {
                    $(PostgresValue::$kind(value) => Self::$kind(value),)+
                    PostgresValue::Null => Self::DbNull,
                    _ => Self::Unsupported,
                }
            }
        }

        impl From<crate::storage::postgres::Column> for $interface::Column {
            fn from(column: crate::storage::postgres::Column) -> Self {
                use crate::storage::postgres::DataType;

                let data_type = match column.data_type {
                    $(DataType::$kind => $interface::DbDataType::$kind,)+
                    _ => $interface::DbDataType::Other,
                };
                Self { name: column.name, data_type }
            }
        }

        impl From<ResultSet> for $interface::RowSet {
            fn from(result: ResultSet) -> Self {
                let (columns, rows, _charge) = result.into_parts();
                let row = |values: Vec<PostgresValue>| values.into_iter().map(Into::into).collect();
                Self {
                    columns: columns.into_iter().map(Into::into).collect(),
                    rows: rows.into_iter().map(row).collect(),
                }
            }
        }
    };
}

/// Conversions from the parameters of an interface.
macro_rules! convert_parameters {
    ($interface:ident, [$($kind:ident),+], [$($unsigned:ident => $signed:expr),*]) => {
        impl From<$interface::ParameterValue> for PostgresValue {
            fn from(value: $interface::ParameterValue) -> Self {
                match value {
                    $($interface::ParameterValue::$kind(value) => Self::$kind(value),)+
                    $($interface::ParameterValue::$unsigned(value) => $signed(value),)*
                    $interface::ParameterValue::DbNull => Self::Null,
                }
            }
        }
    };
}

/// Conversions to an error whose failed statement is a text.
macro_rules! convert_errors {
    ($error:ty) => {
        impl From<PostgresError> for $error {
            fn from(error: PostgresError) -> Self {
                match error {
                    PostgresError::Connection(problem) => Self::ConnectionFailed(problem),
                    PostgresError::Parameter(problem) => Self::BadParameter(problem),
                    PostgresError::Server(error) => Self::QueryFailed(error.text),
                    PostgresError::Query(problem) => Self::QueryFailed(problem),
                    PostgresError::Value(problem) => Self::ValueConversionFailed(problem),
                }
            }
        }
    };
}

/// Conversions from and to `rdbms-types`, whose unsigned integers PostgreSQL does not have.
macro_rules! convert_rdbms_types {
    ($interface:ident) => {
        convert_results!(
            $interface,
            [Boolean, Int8, Int16, Int32, Int64, Floating32, Floating64, Str, Binary]
        );
        convert_parameters!(
            $interface,
            [Boolean, Int8, Int16, Int32, Int64, Floating32, Floating64, Str, Binary],
            [
                Uint8 => |number: u8| Self::Int16(number.into()),
                Uint16 => |number: u16| Self::Int32(number.into()),
                Uint32 => |number: u32| Self::Int64(number.into()),
                Uint64 => |number: u64| Self::Decimal(number.to_string())
            ]
        );
    };
}

/// Implements the connections of an interface: each function is the same in all, with its own types.
macro_rules! implement_connections {
    ($interface:ident) => {
        impl $interface::HostConnection for PostgresView<'_> {
            async fn open(
                &mut self,
                address: String,
            ) -> Result<Result<Resource<PostgresHandle>, $interface::Error>> {
                let attempt = self.attempt(&address);
                Ok(self.open_handle(attempt).await.map_err(Into::into))
            }

            async fn query(
                &mut self,
                handle: Resource<PostgresHandle>,
                statement: String,
                parameters: Vec<$interface::ParameterValue>,
            ) -> Result<Result<$interface::RowSet, $interface::Error>> {
                let result = self.statement(&handle)?.query(statement, parameters).await;
                Ok(result.map(Into::into).map_err(Into::into))
            }

            async fn execute(
                &mut self,
                handle: Resource<PostgresHandle>,
                statement: String,
                parameters: Vec<$interface::ParameterValue>,
            ) -> Result<Result<u64, $interface::Error>> {
                let result = self.statement(&handle)?.execute(statement, parameters).await;
                Ok(result.map_err(Into::into))
            }

            fn drop(&mut self, handle: Resource<PostgresHandle>) -> Result<()> {
                self.table.delete(handle)?;
                Ok(())
            }
        }
    };
}

use {
    convert_errors, convert_parameters, convert_rdbms_types, convert_results, implement_connections,
};

pub(super) struct HasPostgres;

impl HasData for HasPostgres {
    type Data<'a> = PostgresView<'a>;
}

/// Adds the PostgreSQL interfaces to `linker`.
///
/// # Errors
/// The linker already defines one of them.
pub fn add_to_linker(linker: &mut Linker<InstanceState>) -> Result<()> {
    v4::add_to_linker::<_, HasPostgres>(linker, InstanceState::postgres)?;
    v3::add_to_linker::<_, HasPostgres>(linker, InstanceState::postgres)?;
    rdbms_types::add_to_linker::<_, HasPostgres>(linker, InstanceState::postgres)?;
    fermyon::add_to_linker::<_, HasPostgres>(linker, InstanceState::postgres)
}
