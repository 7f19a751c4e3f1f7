//! Outbound Redis: `spin:redis` (`spin_v3`) and `fermyon:spin/redis` (`spin_v2`, and `spin_v1` of Spin 1),
//! to the addresses that `allowed_outbound_hosts` grants.

mod commands;
mod handle;
mod spin_v1;
mod spin_v2;
mod spin_v3;

use std::sync::Arc;

use tokio::sync::Semaphore;
use wasmtime::Result;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};

use crate::config::outbound_hosts::OutboundHosts;
use crate::guest::instance::InstanceState;
use crate::process::memory_budget::MemoryBudget;
use crate::storage::redis::{Address, ComponentConnections, RedisClient, RedisError};

mod generated {
    wasmtime::component::bindgen!({
        path: ["../wit/spin-redis", "../wit/fermyon-spin"],
        inline: "
            package spinfer:host;
            world redis {
                import spin:redis/redis@3.0.0;
                import fermyon:spin/redis@2.0.0;
            }
        ",
        world: "spinfer:host/redis",
        imports: {
            "fermyon:spin/redis.[drop]connection": trappable,
            "fermyon:spin/redis": async | trappable,
            default: trappable,
        },
        with: {
            "spin:redis/redis.connection": super::RedisHandle,
            "fermyon:spin/redis.connection": super::RedisHandle,
        },
    });
}

use commands::{Argument, Flat};
use generated::fermyon::spin::redis as fermyon;
use generated::spin::redis::redis as spin;
use handle::MAX_OWN_CONNECTIONS;
pub use handle::RedisHandle;

/// The outbound Redis state of an instance.
#[derive(Debug)]
pub struct RedisCtx {
    connections: Arc<ComponentConnections>,
    /// Permits for connections that one handle has for itself.
    own_permits: Arc<Semaphore>,
    memory: MemoryBudget,
}

impl RedisCtx {
    #[must_use]
    pub fn new(connections: Arc<ComponentConnections>, memory: MemoryBudget) -> Self {
        let own_permits = Arc::new(Semaphore::new(MAX_OWN_CONNECTIONS));
        Self { connections, own_permits, memory }
    }
}

/// The outbound Redis state of an instance, borrowed for one call.
#[derive(Debug)]
pub struct RedisView<'a> {
    pub ctx: &'a mut RedisCtx,
    pub allowed: &'a OutboundHosts,
    pub table: &'a mut ResourceTable,
}

/// Why a guest gets no connection.
enum ConnectError {
    InvalidAddress,
    TooMany,
    Failed(RedisError),
}

impl RedisView<'_> {
    /// The client of `address`, if the component is granted it.
    fn client(&self, address: &str) -> Result<Arc<RedisClient>, ConnectError> {
        let address = Address::parse(address).map_err(|_| ConnectError::InvalidAddress)?;
        let Address { scheme, host, port, .. } = &address;
        if !self.allowed.allows(scheme, host, Some(*port)) {
            return Err(ConnectError::InvalidAddress);
        }
        self.ctx.connections.client(&address).map_err(ConnectError::from)
    }

    fn open_handle(
        &mut self,
        client: Arc<RedisClient>,
    ) -> Result<Resource<RedisHandle>, ConnectError> {
        let handle = self.new_handle(client);
        self.table.push(handle).map_err(|_| ConnectError::TooMany)
    }

    fn new_handle(&self, client: Arc<RedisClient>) -> RedisHandle {
        RedisHandle::new(client, Arc::clone(&self.ctx.own_permits), self.ctx.memory.clone())
    }

    fn handle(&self, handle: &Resource<RedisHandle>) -> Result<RedisHandle> {
        Ok(self.table.get(handle)?.clone())
    }
}

impl From<RedisError> for ConnectError {
    fn from(error: RedisError) -> Self {
        match error {
            RedisError::TooMany { .. } => Self::TooMany,
            error => Self::Failed(error),
        }
    }
}

/// Conversions from and to the types of an interface: those of both have the same shape.
macro_rules! convert_types {
    ($interface:ident) => {
        impl From<ConnectError> for $interface::Error {
            fn from(error: ConnectError) -> Self {
                match error {
                    ConnectError::InvalidAddress => Self::InvalidAddress,
                    ConnectError::TooMany => Self::TooManyConnections,
                    ConnectError::Failed(error) => error.into(),
                }
            }
        }

        impl From<RedisError> for $interface::Error {
            fn from(error: RedisError) -> Self {
                match error {
                    RedisError::TooMany { .. } => Self::TooManyConnections,
                    RedisError::Type(_) => Self::TypeError,
                    RedisError::Timeout
                    | RedisError::Lost(_)
                    | RedisError::Connect(_)
                    | RedisError::Command(_) => Self::Other(error.to_string()),
                }
            }
        }

        impl From<$interface::RedisParameter> for Argument {
            fn from(parameter: $interface::RedisParameter) -> Self {
                match parameter {
                    $interface::RedisParameter::Int64(number) => Self::Number(number),
                    $interface::RedisParameter::Binary(bytes) => Self::Bytes(bytes),
                }
            }
        }

        impl From<Flat> for $interface::RedisResult {
            fn from(flat: Flat) -> Self {
                match flat {
                    Flat::Nil => Self::Nil,
                    Flat::Status(text) => Self::Status(text),
                    Flat::Number(number) => Self::Int64(number),
                    Flat::Bytes(bytes) => Self::Binary(bytes),
                }
            }
        }
    };
}

convert_types!(spin);
convert_types!(fermyon);

pub(super) struct HasRedis;

impl HasData for HasRedis {
    type Data<'a> = RedisView<'a>;
}

/// Adds the Redis interfaces to `linker`.
///
/// # Errors
/// The linker already defines one of them.
pub fn add_to_linker(linker: &mut Linker<InstanceState>) -> Result<()> {
    spin::add_to_linker::<_, HasRedis>(linker, InstanceState::redis)?;
    fermyon::add_to_linker::<_, HasRedis>(linker, InstanceState::redis)
}
