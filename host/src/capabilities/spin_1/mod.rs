//! The interfaces of Spin 1, `fermyon:spin/{config,http,key-value,postgres,redis}` without a version, which
//! TinyGo's SDK imports. The state in the store is that of the newer interfaces. Redis and PostgreSQL:
//! `spin_v1.rs` in their folders.

mod config;
mod http;
mod key_value;

use wasmtime::Result;
use wasmtime::component::{HasData, Linker};

use super::key_value::HasKeyValue;
use super::outbound_http::OutboundHttpCtx;
use super::postgres::HasPostgres;
use super::redis::HasRedis;
use super::variables::HasVariables;
use crate::guest::instance::InstanceState;
use crate::process::memory_budget::MemoryBudget;

mod generated {
    wasmtime::component::bindgen!({
        path: "../wit/fermyon-spin-1",
        world: "platform",
        imports: {
            "fermyon:spin/config": trappable,
            "fermyon:spin/key-value.open": trappable,
            "fermyon:spin/key-value.close": trappable,
            default: async | trappable,
        },
    });
}

pub(super) use generated::fermyon::spin as wit;

/// What an outbound request of an instance needs, borrowed for one call.
#[derive(Debug)]
pub struct HttpView<'a> {
    pub outbound: &'a OutboundHttpCtx,
    /// Charged for the response.
    pub memory: &'a MemoryBudget,
}

struct HasHttp;

impl HasData for HasHttp {
    type Data<'a> = HttpView<'a>;
}

/// Adds the interfaces of Spin 1 to `linker`.
///
/// # Errors
/// The linker already defines one of them.
pub fn add_to_linker(linker: &mut Linker<InstanceState>) -> Result<()> {
    wit::config::add_to_linker::<_, HasVariables>(linker, InstanceState::variables)?;
    wit::http::add_to_linker::<_, HasHttp>(linker, InstanceState::outbound_http)?;
    wit::key_value::add_to_linker::<_, HasKeyValue>(linker, InstanceState::key_value)?;
    wit::rdbms_types::add_to_linker::<_, HasPostgres>(linker, InstanceState::postgres)?;
    wit::postgres::add_to_linker::<_, HasPostgres>(linker, InstanceState::postgres)?;
    wit::redis::add_to_linker::<_, HasRedis>(linker, InstanceState::redis)
}
