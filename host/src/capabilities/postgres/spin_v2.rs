//! `fermyon:spin/postgres@2.0.0`: no dates, and unsigned integers, which PostgreSQL does not have.

use wasmtime::Result;
use wasmtime::component::Resource;

use super::{
    PostgresError, PostgresHandle, PostgresValue, PostgresView, ResultSet, convert_errors,
    convert_parameters, convert_results,
};
use super::{fermyon as wit, rdbms_types};

convert_errors!(rdbms_types::Error);
convert_results!(
    rdbms_types,
    [Boolean, Int8, Int16, Int32, Int64, Floating32, Floating64, Str, Binary]
);
convert_parameters!(
    rdbms_types,
    [Boolean, Int8, Int16, Int32, Int64, Floating32, Floating64, Str, Binary],
    [
        Uint8 => |number: u8| Self::Int16(number.into()),
        Uint16 => |number: u16| Self::Int32(number.into()),
        Uint32 => |number: u32| Self::Int64(number.into()),
        Uint64 => |number: u64| Self::Decimal(number.to_string())
    ]
);

impl rdbms_types::Host for PostgresView<'_> {}

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
