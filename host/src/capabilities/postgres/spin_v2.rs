//! `fermyon:spin/postgres@2.0.0`: no dates, and unsigned integers, which PostgreSQL does not have.

use wasmtime::Result;
use wasmtime::component::Resource;

use super::{
    PostgresError, PostgresHandle, PostgresValue, PostgresView, ResultSet, convert_errors,
    convert_parameters, convert_rdbms_types, convert_results, implement_connections,
};
use super::{fermyon as wit, rdbms_types};

convert_errors!(rdbms_types::Error);
convert_rdbms_types!(rdbms_types);
implement_connections!(wit);

impl rdbms_types::Host for PostgresView<'_> {}

impl wit::Host for PostgresView<'_> {}
