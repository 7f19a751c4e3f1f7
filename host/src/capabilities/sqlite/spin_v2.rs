//! `fermyon:spin/sqlite@2.0.0`: one call at a time.

use wasmtime::Result;
use wasmtime::component::Resource;

use super::generated::fermyon::spin::sqlite as wit;
use super::{SqliteHandle, SqliteView};

impl wit::Host for SqliteView<'_> {}

impl wit::HostConnection for SqliteView<'_> {
    async fn open(&mut self, label: String) -> Result<Result<Resource<SqliteHandle>, wit::Error>> {
        let opening = match self.opening(&label) {
            Ok(opening) => opening,
            Err(error) => return Ok(Err(error.into())),
        };
        let opened = opening.connect().await.and_then(|handle| self.insert(handle));
        Ok(opened.map_err(Into::into))
    }

    async fn execute(
        &mut self,
        handle: Resource<SqliteHandle>,
        statement: String,
        parameters: Vec<wit::Value>,
    ) -> Result<Result<wit::QueryResult, wit::Error>> {
        let parameters = parameters.into_iter().map(Into::into);
        let result = self.execution(&handle)?.run(statement, parameters).await;
        Ok(result.map(Into::into).map_err(Into::into))
    }

    fn drop(&mut self, handle: Resource<SqliteHandle>) -> Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}
