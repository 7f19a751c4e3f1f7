//! `spin:postgres@3.0.0`: synchronous functions, and fewer types.

use wasmtime::Result;
use wasmtime::component::Resource;

use super::v3 as wit;
use super::{
    PostgresError, PostgresHandle, PostgresValue, PostgresView, ResultSet, convert_errors,
    convert_parameters, convert_results,
};

convert_errors!(wit::Error);
convert_results!(
    wit,
    [Boolean, Int8, Int16, Int32, Int64, Floating32, Floating64, Str, Binary, Date, Time, Datetime]
);
convert_parameters!(
    wit,
    [
        Boolean, Int8, Int16, Int32, Int64, Floating32, Floating64, Str, Binary, Date, Time,
        Datetime, Timestamp
    ],
    []
);

impl wit::Host for PostgresView<'_> {}

impl wit::HostConnection for PostgresView<'_> {
    async fn open(
        &mut self,
        address: String,
    ) -> Result<Result<Resource<PostgresHandle>, wit::Error>> {
        let attempt = self.attempt(&address);
        Ok(self.open_handle(attempt).await.map_err(Into::into))
    }

    async fn query(
        &mut self,
        handle: Resource<PostgresHandle>,
        statement: String,
        parameters: Vec<wit::ParameterValue>,
    ) -> Result<Result<wit::RowSet, wit::Error>> {
        let result = self.statement(&handle)?.query(statement, parameters).await;
        Ok(result.map(Into::into).map_err(Into::into))
    }

    async fn execute(
        &mut self,
        handle: Resource<PostgresHandle>,
        statement: String,
        parameters: Vec<wit::ParameterValue>,
    ) -> Result<Result<u64, wit::Error>> {
        let result = self.statement(&handle)?.execute(statement, parameters).await;
        Ok(result.map_err(Into::into))
    }

    fn drop(&mut self, handle: Resource<PostgresHandle>) -> Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}
