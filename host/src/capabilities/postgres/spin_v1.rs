//! `fermyon:spin/postgres` of Spin 1: each call has the address, and a connection of its own.

use wasmtime::Result;

use super::{
    PostgresError, PostgresValue, PostgresView, ResultSet, StatementCall, convert_errors,
    convert_parameters, convert_rdbms_types, convert_results,
};
use crate::capabilities::spin_1::wit::postgres::{self as wit, PgError};
use crate::capabilities::spin_1::wit::rdbms_types::{self, ParameterValue, RowSet};

convert_errors!(PgError);
convert_rdbms_types!(rdbms_types);

impl rdbms_types::Host for PostgresView<'_> {}

impl PostgresView<'_> {
    /// A connection for one statement.
    async fn connect_once(&mut self, address: &str) -> Result<StatementCall, PostgresError> {
        let handle = self.attempt(address)?.connect().await?;
        Ok(StatementCall { connection: handle.0, deadline: self.deadline })
    }
}

impl wit::Host for PostgresView<'_> {
    async fn query(
        &mut self,
        address: String,
        statement: String,
        parameters: Vec<ParameterValue>,
    ) -> Result<Result<RowSet, PgError>> {
        let result = match self.connect_once(&address).await {
            Ok(call) => call.query(statement, parameters).await,
            Err(error) => Err(error),
        };
        Ok(result.map(Into::into).map_err(Into::into))
    }

    async fn execute(
        &mut self,
        address: String,
        statement: String,
        parameters: Vec<ParameterValue>,
    ) -> Result<Result<u64, PgError>> {
        let result = match self.connect_once(&address).await {
            Ok(call) => call.execute(statement, parameters).await,
            Err(error) => Err(error),
        };
        Ok(result.map_err(Into::into))
    }
}
