//! `spin:postgres@3.0.0`: synchronous functions, and fewer types.

use wasmtime::Result;
use wasmtime::component::Resource;

use super::v3 as wit;
use super::{
    PostgresError, PostgresHandle, PostgresValue, PostgresView, ResultSet, convert_errors,
    convert_parameters, convert_results, implement_connections,
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

implement_connections!(wit);
