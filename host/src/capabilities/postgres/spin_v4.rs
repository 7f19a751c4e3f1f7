//! `spin:postgres@4.2.0`: all types, synchronous functions as in 4.0.0, and concurrent calls.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

use wasmtime::component::{
    Accessor, Destination, FutureReader, Resource, StreamProducer, StreamReader, StreamResult,
    VecBuffer,
};
use wasmtime::{Result, StoreContextMut};

use super::v4 as wit;
use super::{
    CaRoot, ConnectionAttempt, HasPostgres, PostgresAddress, PostgresBuilder, PostgresError,
    PostgresHandle, PostgresValue, PostgresView, ResultSet, implement_connections,
};
use crate::process::memory_budget::Charge;
use crate::storage::postgres::{BoundKind, Column, DataType, Interval, ServerError};

/// Number of rows that are passed to a guest at a time.
const CHUNK: usize = 256;

impl wit::Host for PostgresView<'_> {}

impl PostgresView<'_> {
    fn attempt_of(
        &self,
        builder: &Resource<PostgresBuilder>,
    ) -> Result<Result<ConnectionAttempt, PostgresError>> {
        let PostgresBuilder { address, ca_root } = self.table.get(builder)?;
        Ok(match address {
            Ok(address) => {
                let ca_root = ca_root.as_ref().map(|(ca_root, _charge)| ca_root.clone());
                self.granted(address.clone(), ca_root)
            }
            Err(problem) => Err(PostgresError::Connection(problem.clone())),
        })
    }
}

impl wit::HostConnectionBuilder for PostgresView<'_> {
    fn new(&mut self, address: String) -> Result<Resource<PostgresBuilder>> {
        let address = PostgresAddress::parse(&address);
        Ok(self.table.push(PostgresBuilder { address, ca_root: None })?)
    }

    fn set_ca_root(
        &mut self,
        builder: Resource<PostgresBuilder>,
        certificate: String,
    ) -> Result<Result<(), wit::Error>> {
        let charge = match self.ctx.memory.charge(certificate.len()) {
            Ok(charge) => charge,
            Err(error) => return Ok(Err(wit::Error::Other(error.to_string()))),
        };
        match CaRoot::parse(&certificate) {
            Ok(ca_root) => self.table.get_mut(&builder)?.ca_root = Some((ca_root, charge)),
            Err(problem) => return Ok(Err(wit::Error::Other(problem))),
        }
        Ok(Ok(()))
    }

    async fn build(
        &mut self,
        builder: Resource<PostgresBuilder>,
    ) -> Result<Result<Resource<PostgresHandle>, wit::Error>> {
        let attempt = self.attempt_of(&builder)?;
        Ok(self.open_handle(attempt).await.map_err(Into::into))
    }

    fn drop(&mut self, builder: Resource<PostgresBuilder>) -> Result<()> {
        self.table.delete(builder)?;
        Ok(())
    }
}

impl<T> wit::HostConnectionBuilderWithStore<T> for HasPostgres {
    async fn build_async(
        accessor: &Accessor<T, Self>,
        builder: Resource<PostgresBuilder>,
    ) -> Result<Result<Resource<PostgresHandle>, wit::Error>> {
        let attempt = accessor.with(|mut access| access.get().attempt_of(&builder))?;
        Ok(Self::open_handle(accessor, attempt).await.map_err(Into::into))
    }
}

implement_connections!(wit);

impl HasPostgres {
    async fn open_handle<T>(
        accessor: &Accessor<T, Self>,
        attempt: Result<ConnectionAttempt, PostgresError>,
    ) -> Result<Resource<PostgresHandle>, PostgresError> {
        let handle = attempt?.connect().await?;
        accessor.with(|mut access| access.get().insert(handle))
    }
}

/// The columns of a result, its rows, and whether all were read.
type ResultStream =
    (Vec<wit::Column>, StreamReader<wit::Row>, FutureReader<Result<(), wit::Error>>);

impl<T> wit::HostConnectionWithStore<T> for HasPostgres {
    async fn open_async(
        accessor: &Accessor<T, Self>,
        address: String,
    ) -> Result<Result<Resource<PostgresHandle>, wit::Error>> {
        let attempt = accessor.with(|mut access| access.get().attempt(&address));
        Ok(Self::open_handle(accessor, attempt).await.map_err(Into::into))
    }

    async fn query_async(
        accessor: &Accessor<T, Self>,
        handle: Resource<PostgresHandle>,
        statement: String,
        parameters: Vec<wit::ParameterValue>,
    ) -> Result<Result<ResultStream, wit::Error>> {
        let call = accessor.with(|mut access| access.get().statement(&handle))?;
        let (columns, rows, charge) = match call.query(statement, parameters).await {
            Ok(result) => result.into_parts(),
            Err(error) => return Ok(Err(error.into())),
        };
        let columns = columns.into_iter().map(Into::into).collect();
        let rows = RowProducer { rows: rows.into_iter(), _charge: charge };
        accessor.with(|mut access| {
            let rows = StreamReader::new(&mut access, rows)?;
            let finished = std::future::ready(Ok::<_, wasmtime::Error>(Ok(())));
            Ok(Ok((columns, rows, FutureReader::new(&mut access, finished)?)))
        })
    }

    async fn execute_async(
        accessor: &Accessor<T, Self>,
        handle: Resource<PostgresHandle>,
        statement: String,
        parameters: Vec<wit::ParameterValue>,
    ) -> Result<Result<u64, wit::Error>> {
        let call = accessor.with(|mut access| access.get().statement(&handle))?;
        Ok(call.execute(statement, parameters).await.map_err(Into::into))
    }
}

/// The rows of a result, passed on as the guest reads the stream.
struct RowProducer {
    rows: vec::IntoIter<Vec<PostgresValue>>,
    _charge: Charge,
}

impl<D> StreamProducer<D> for RowProducer {
    type Item = wit::Row;
    type Buffer = VecBuffer<wit::Row>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut store: StoreContextMut<'a, D>,
        mut destination: Destination<'a, wit::Row, VecBuffer<wit::Row>>,
        _finish: bool,
    ) -> Poll<Result<StreamResult>> {
        if destination.remaining(&mut store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let chunk: Vec<_> = self.rows.by_ref().take(CHUNK).map(row).collect();
        destination.set_buffer(chunk.into());
        let is_last = self.rows.len() == 0;
        Poll::Ready(Ok(if is_last { StreamResult::Dropped } else { StreamResult::Completed }))
    }
}

fn row(values: Vec<PostgresValue>) -> wit::Row {
    values.into_iter().map(Into::into).collect()
}

impl From<ResultSet> for wit::RowSet {
    fn from(result: ResultSet) -> Self {
        let (columns, rows, _charge) = result.into_parts();
        let columns = columns.into_iter().map(Into::into).collect();
        Self { columns, rows: rows.into_iter().map(row).collect() }
    }
}

impl From<PostgresError> for wit::Error {
    fn from(error: PostgresError) -> Self {
        match error {
            PostgresError::Connection(problem) => Self::ConnectionFailed(problem),
            PostgresError::Parameter(problem) => Self::BadParameter(problem),
            PostgresError::Server(error) => {
                let ServerError { text, severity, code, message, detail, extras } = *error;
                Self::QueryFailed(wit::QueryError::DbError(wit::DbError {
                    as_text: text,
                    severity,
                    code,
                    message,
                    detail,
                    extras,
                }))
            }
            PostgresError::Query(problem) => Self::QueryFailed(wit::QueryError::Text(problem)),
            PostgresError::Value(problem) => Self::ValueConversionFailed(problem),
        }
    }
}

impl From<Column> for wit::Column {
    fn from(column: Column) -> Self {
        let data_type = match column.data_type {
            DataType::Boolean => wit::DbDataType::Boolean,
            DataType::Int8 => wit::DbDataType::Int8,
            DataType::Int16 => wit::DbDataType::Int16,
            DataType::Int32 => wit::DbDataType::Int32,
            DataType::Int64 => wit::DbDataType::Int64,
            DataType::Floating32 => wit::DbDataType::Floating32,
            DataType::Floating64 => wit::DbDataType::Floating64,
            DataType::Str => wit::DbDataType::Str,
            DataType::Binary => wit::DbDataType::Binary,
            DataType::Date => wit::DbDataType::Date,
            DataType::Time => wit::DbDataType::Time,
            DataType::Datetime => wit::DbDataType::Datetime,
            DataType::Uuid => wit::DbDataType::Uuid,
            DataType::Jsonb => wit::DbDataType::Jsonb,
            DataType::Decimal => wit::DbDataType::Decimal,
            DataType::RangeInt32 => wit::DbDataType::RangeInt32,
            DataType::RangeInt64 => wit::DbDataType::RangeInt64,
            DataType::RangeDecimal => wit::DbDataType::RangeDecimal,
            DataType::ArrayInt32 => wit::DbDataType::ArrayInt32,
            DataType::ArrayInt64 => wit::DbDataType::ArrayInt64,
            DataType::ArrayDecimal => wit::DbDataType::ArrayDecimal,
            DataType::ArrayStr => wit::DbDataType::ArrayStr,
            DataType::Interval => wit::DbDataType::Interval,
            DataType::Other(name) => wit::DbDataType::Other(name),
        };
        Self { name: column.name, data_type }
    }
}

/// Both bounds of a range in another type of their kind.
type Bounds<T, K> = (Option<(T, K)>, Option<(T, K)>);

fn bounds<T, K, L: From<K>>((lower, upper): Bounds<T, K>) -> Bounds<T, L> {
    let bound = |bound: Option<(T, K)>| bound.map(|(value, kind)| (value, kind.into()));
    (bound(lower), bound(upper))
}

impl From<BoundKind> for wit::RangeBoundKind {
    fn from(kind: BoundKind) -> Self {
        match kind {
            BoundKind::Inclusive => Self::Inclusive,
            BoundKind::Exclusive => Self::Exclusive,
        }
    }
}

impl From<wit::RangeBoundKind> for BoundKind {
    fn from(kind: wit::RangeBoundKind) -> Self {
        match kind {
            wit::RangeBoundKind::Inclusive => Self::Inclusive,
            wit::RangeBoundKind::Exclusive => Self::Exclusive,
        }
    }
}

impl From<PostgresValue> for wit::DbValue {
    fn from(value: PostgresValue) -> Self {
        match value {
            PostgresValue::Boolean(value) => Self::Boolean(value),
            PostgresValue::Int8(value) => Self::Int8(value),
            PostgresValue::Int16(value) => Self::Int16(value),
            PostgresValue::Int32(value) => Self::Int32(value),
            PostgresValue::Int64(value) => Self::Int64(value),
            PostgresValue::Floating32(value) => Self::Floating32(value),
            PostgresValue::Floating64(value) => Self::Floating64(value),
            PostgresValue::Str(value) => Self::Str(value),
            PostgresValue::Binary(value) => Self::Binary(value),
            PostgresValue::Date(value) => Self::Date(value),
            PostgresValue::Time(value) => Self::Time(value),
            PostgresValue::Datetime(value) => Self::Datetime(value),
            PostgresValue::Timestamp(value) => Self::Timestamp(value),
            PostgresValue::Uuid(value) => Self::Uuid(value),
            PostgresValue::Jsonb(value) => Self::Jsonb(value),
            PostgresValue::Decimal(value) => Self::Decimal(value),
            PostgresValue::RangeInt32(value) => Self::RangeInt32(bounds(value)),
            PostgresValue::RangeInt64(value) => Self::RangeInt64(bounds(value)),
            PostgresValue::RangeDecimal(value) => Self::RangeDecimal(bounds(value)),
            PostgresValue::ArrayInt32(value) => Self::ArrayInt32(value),
            PostgresValue::ArrayInt64(value) => Self::ArrayInt64(value),
            PostgresValue::ArrayDecimal(value) => Self::ArrayDecimal(value),
            PostgresValue::ArrayStr(value) => Self::ArrayStr(value),
            PostgresValue::Interval(Interval { micros, days, months }) => {
                Self::Interval(wit::Interval { micros, days, months })
            }
            PostgresValue::Null => Self::DbNull,
            PostgresValue::Unsupported(value) => Self::Unsupported(value),
        }
    }
}

impl From<wit::ParameterValue> for PostgresValue {
    fn from(value: wit::ParameterValue) -> Self {
        match value {
            wit::ParameterValue::Boolean(value) => Self::Boolean(value),
            wit::ParameterValue::Int8(value) => Self::Int8(value),
            wit::ParameterValue::Int16(value) => Self::Int16(value),
            wit::ParameterValue::Int32(value) => Self::Int32(value),
            wit::ParameterValue::Int64(value) => Self::Int64(value),
            wit::ParameterValue::Floating32(value) => Self::Floating32(value),
            wit::ParameterValue::Floating64(value) => Self::Floating64(value),
            wit::ParameterValue::Str(value) => Self::Str(value),
            wit::ParameterValue::Binary(value) => Self::Binary(value),
            wit::ParameterValue::Date(value) => Self::Date(value),
            wit::ParameterValue::Time(value) => Self::Time(value),
            wit::ParameterValue::Datetime(value) => Self::Datetime(value),
            wit::ParameterValue::Timestamp(value) => Self::Timestamp(value),
            wit::ParameterValue::Uuid(value) => Self::Uuid(value),
            wit::ParameterValue::Jsonb(value) => Self::Jsonb(value),
            wit::ParameterValue::Decimal(value) => Self::Decimal(value),
            wit::ParameterValue::RangeInt32(value) => Self::RangeInt32(bounds(value)),
            wit::ParameterValue::RangeInt64(value) => Self::RangeInt64(bounds(value)),
            wit::ParameterValue::RangeDecimal(value) => Self::RangeDecimal(bounds(value)),
            wit::ParameterValue::ArrayInt32(value) => Self::ArrayInt32(value),
            wit::ParameterValue::ArrayInt64(value) => Self::ArrayInt64(value),
            wit::ParameterValue::ArrayDecimal(value) => Self::ArrayDecimal(value),
            wit::ParameterValue::ArrayStr(value) => Self::ArrayStr(value),
            wit::ParameterValue::Interval(wit::Interval { micros, days, months }) => {
                Self::Interval(Interval { micros, days, months })
            }
            wit::ParameterValue::DbNull => Self::Null,
        }
    }
}
