//! `spin:sqlite@3.1.0`: synchronous functions, as in 3.0.0, and concurrent calls.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

use wasmtime::component::{
    Accessor, Destination, FutureReader, Resource, StreamProducer, StreamReader, StreamResult,
    VecBuffer,
};
use wasmtime::{Result, StoreContextMut};

use super::generated::spin::sqlite::sqlite as wit;
use super::{HasSqlite, SqliteHandle, SqliteView};
use crate::process::memory_budget::Charge;
use crate::storage::sqlite::Value;

/// Number of rows that are passed to a guest at a time.
const CHUNK: usize = 256;

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

    fn last_insert_rowid(&mut self, handle: Resource<SqliteHandle>) -> Result<i64> {
        Ok(self.connection(&handle)?.last_insert_rowid())
    }

    fn changes(&mut self, handle: Resource<SqliteHandle>) -> Result<u64> {
        Ok(self.connection(&handle)?.changes())
    }

    fn drop(&mut self, handle: Resource<SqliteHandle>) -> Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

/// The columns of a result, its rows, and whether all were read.
type ResultStream =
    (Vec<String>, StreamReader<wit::RowResult>, FutureReader<Result<(), wit::Error>>);

impl<T> wit::HostConnectionWithStore<T> for HasSqlite {
    async fn open_async(
        accessor: &Accessor<T, Self>,
        label: String,
    ) -> Result<Result<Resource<SqliteHandle>, wit::Error>> {
        let opening = match accessor.with(|mut access| access.get().opening(&label)) {
            Ok(opening) => opening,
            Err(error) => return Ok(Err(error.into())),
        };
        let opened = opening.connect().await;
        let opened =
            opened.and_then(|handle| accessor.with(|mut access| access.get().insert(handle)));
        Ok(opened.map_err(Into::into))
    }

    async fn execute_async(
        accessor: &Accessor<T, Self>,
        handle: Resource<SqliteHandle>,
        statement: String,
        parameters: Vec<wit::Value>,
    ) -> Result<Result<ResultStream, wit::Error>> {
        let execution = accessor.with(|mut access| access.get().execution(&handle))?;
        let parameters = parameters.into_iter().map(Into::into);
        let (columns, rows, charge) = match execution.run(statement, parameters).await {
            Ok(result) => result.into_parts(),
            Err(error) => return Ok(Err(error.into())),
        };
        let rows = RowStream { rows: rows.into_iter(), _charge: charge };
        accessor.with(|mut access| {
            let rows = StreamReader::new(&mut access, rows)?;
            let finished = std::future::ready(Ok::<_, wasmtime::Error>(Ok(())));
            Ok(Ok((columns, rows, FutureReader::new(&mut access, finished)?)))
        })
    }

    async fn last_insert_rowid_async(
        accessor: &Accessor<T, Self>,
        handle: Resource<SqliteHandle>,
    ) -> Result<i64> {
        accessor
            .with(|mut access| access.get().connection(&handle))
            .map(|connection| connection.last_insert_rowid())
    }

    async fn changes_async(
        accessor: &Accessor<T, Self>,
        handle: Resource<SqliteHandle>,
    ) -> Result<u64> {
        accessor
            .with(|mut access| access.get().connection(&handle))
            .map(|connection| connection.changes())
    }
}

/// The rows of a result, passed on as the guest reads the stream.
struct RowStream {
    rows: vec::IntoIter<Vec<Value>>,
    _charge: Charge,
}

impl<D> StreamProducer<D> for RowStream {
    type Item = wit::RowResult;
    type Buffer = VecBuffer<wit::RowResult>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut store: StoreContextMut<'a, D>,
        mut destination: Destination<'a, wit::RowResult, VecBuffer<wit::RowResult>>,
        _finish: bool,
    ) -> Poll<Result<StreamResult>> {
        if destination.remaining(&mut store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let chunk: Vec<_> = self.rows.by_ref().take(CHUNK).map(Into::into).collect();
        destination.set_buffer(chunk.into());
        let is_last = self.rows.len() == 0;
        Poll::Ready(Ok(if is_last { StreamResult::Dropped } else { StreamResult::Completed }))
    }
}
