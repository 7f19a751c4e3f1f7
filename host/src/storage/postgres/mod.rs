//! Connections to PostgreSQL servers, for guests. A connection belongs to one handle: its transactions and
//! settings are the guest's, and nothing of it is left for another. A server that is slow, unreachable or
//! hostile costs a bounded time and a bounded amount of the instance's memory.

mod address;
mod connect;
mod connection;
mod decode;
mod encode;
mod error;
mod framing;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod result;
mod value;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;

use crate::config::blocked_networks::BlockedNetworks;
use crate::process::memory_budget::MemoryBudget;

pub use address::{PostgresAddress, SCHEME, ServerLocation};
pub use connect::CaRoot;
pub use connection::PostgresConnection;
pub use error::{PostgresError, ServerError};
pub use result::ResultSet;
pub use value::{BoundKind, Column, DataType, Interval, PostgresValue};

/// Maximum number of connections of all components.
const MAX_CONNECTIONS: usize = 256;
/// Maximum number of connections of one component.
const MAX_PER_COMPONENT: usize = 64;
/// Timeout to wait for a permit, and then of a connection, including TLS and login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout to cancel a statement, and for a connection to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum size of a message of a server, and so of a row, in bytes.
const MAX_MESSAGE: usize = 16 << 20;
/// Maximum size of a result, in bytes, each value and each row counted with an overhead.
const MAX_RESULT: usize = 16 << 20;
/// Maximum size of a statement with its parameters, in bytes.
const MAX_STATEMENT: usize = 16 << 20;

/// The connections of all components.
#[derive(Clone)]
pub struct PostgresConnections {
    permits: Arc<Semaphore>,
    tls: Arc<ClientConfig>,
    blocked: BlockedNetworks,
}

impl fmt::Debug for PostgresConnections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConnections")
            .field("permits", &self.permits)
            .finish_non_exhaustive()
    }
}

impl PostgresConnections {
    /// Connections, none of them to a network that is `blocked`; `tls` verifies certificates.
    #[must_use]
    pub fn new(tls: &ClientConfig, blocked: BlockedNetworks) -> Self {
        let tls = Arc::new(connect::with_protocol(tls.clone()));
        Self { permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)), tls, blocked }
    }

    /// The connections of one more component.
    #[must_use]
    pub fn for_component(&self) -> Arc<ComponentPostgres> {
        let permits = Arc::new(Semaphore::new(MAX_PER_COMPONENT));
        Arc::new(ComponentPostgres { all: self.clone(), permits })
    }
}

/// The connections of one component.
#[derive(Debug)]
pub struct ComponentPostgres {
    all: PostgresConnections,
    permits: Arc<Semaphore>,
}

impl ComponentPostgres {
    /// Connects to the first server of `address` that accepts it. `memory` is charged for messages,
    /// parameters and results. `ca_root` replaces the trusted authorities of the host.
    ///
    /// # Errors
    /// The limit of connections is reached, or each server fails.
    pub async fn connect(
        &self,
        address: &PostgresAddress,
        ca_root: Option<&CaRoot>,
        memory: &MemoryBudget,
    ) -> Result<PostgresConnection, PostgresError> {
        let permits = timeout(CONNECT_TIMEOUT, self.permits()).await.ok().flatten();
        let permits = permits.ok_or_else(|| {
            PostgresError::Connection(format!(
                "too many PostgreSQL connections are open, {MAX_PER_COMPONENT} of this component or \
                 {MAX_CONNECTIONS} of all; drop some"
            ))
        })?;
        let tls = ca_root.map_or(&self.all.tls, CaRoot::tls);
        connect::first(address, tls, &self.all.blocked, memory, permits).await
    }

    /// The component's permit first, so that it cannot wait with several of all.
    async fn permits(&self) -> Option<[OwnedSemaphorePermit; 2]> {
        let own = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        let all = Arc::clone(&self.all.permits).acquire_owned().await.ok()?;
        Some([own, all])
    }
}

#[cfg(test)]
mod tests;
