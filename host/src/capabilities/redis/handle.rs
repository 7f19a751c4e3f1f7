//! A guest's handle to a Redis server, and the connection that it may have for itself.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use crate::process::memory_budget::MemoryBudget;
use crate::storage::redis::{RedisClient, RedisConnection, RedisError};

/// Maximum number of connections of an instance that its handles do not share: the operator limits
/// those of all components.
pub(super) const MAX_OWN_CONNECTIONS: usize = 4;

/// A guest's handle to a Redis server.
#[derive(Clone, Debug)]
pub struct RedisHandle(pub(super) Arc<ConnectionCache>);

impl RedisHandle {
    /// A handle of an instance that has `permits` for connections of their own, and `memory`.
    pub(super) fn new(
        client: Arc<RedisClient>,
        permits: Arc<Semaphore>,
        memory: MemoryBudget,
    ) -> Self {
        Self(Arc::new(ConnectionCache { client, own: Mutex::default(), permits, memory }))
    }
}

/// The connections that a handle uses.
#[derive(Debug)]
pub(super) struct ConnectionCache {
    /// The connection that the instances of the component share.
    pub(super) client: Arc<RedisClient>,
    /// The handle's own connection, opened by the first command that may change the state of its
    /// connection.
    own: Mutex<Option<Arc<OwnConnection>>>,
    /// Permits of the instance for connections of their own.
    permits: Arc<Semaphore>,
    pub(super) memory: MemoryBudget,
}

/// A connection that only one handle uses.
#[derive(Debug)]
pub(super) struct OwnConnection {
    pub(super) connection: RedisConnection,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionCache {
    /// The handle's own connection, if it has one.
    ///
    /// # Errors
    /// The connection was lost. It is not replaced silently, as the state that the guest has set on it
    /// is lost too.
    pub(super) async fn own(&self) -> Result<Option<Arc<OwnConnection>>, RedisError> {
        let mut own = self.own.lock().await;
        if own.take_if(|own| !own.connection.is_open()).is_some() {
            return Err(RedisError::Lost("Redis closed the connection".into()));
        }
        Ok(own.clone())
    }

    /// Opens the handle's own connection, if it has none.
    pub(super) async fn ensure_own(&self) -> Result<(), RedisError> {
        let mut own = self.own.lock().await;
        if own.is_none() {
            let permit = Arc::clone(&self.permits).try_acquire_owned();
            let _permit = permit.map_err(|_| RedisError::TooMany { limit: MAX_OWN_CONNECTIONS })?;
            let connection = self.client.own_connection().await?;
            *own = Some(Arc::new(OwnConnection { connection, _permit }));
        }
        Ok(())
    }

    /// Removes a connection that was lost.
    pub(super) async fn remove(&self, lost: &Arc<OwnConnection>) {
        self.own.lock().await.take_if(|own| Arc::ptr_eq(own, lost));
    }
}
