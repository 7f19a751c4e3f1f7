//! Outbound Redis: `spin:redis` and `fermyon:spin/redis`. Where a guest may connect to is what its
//! `allowed_outbound_hosts` says.

mod commands;

use std::sync::Arc;

use redis::cmd;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use wasmtime::Result;
use wasmtime::component::{Accessor, HasData, Linker, Resource, ResourceTable};

use crate::process::memory_budget::MemoryBudget;
use crate::guest::instance::InstanceState;
use crate::config::outbound_hosts::OutboundHosts;
use crate::storage::redis::{Address, Connection, Error, Link, Share};

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
            "spin:redis/redis.connection": super::Handle,
            "fermyon:spin/redis.connection": super::Handle,
        },
    });
}

use commands::{Argument, Flat};
use generated::fermyon::spin::redis as fermyon;
use generated::spin::redis::redis as spin;

/// Connections an instance may have that it does not share: there are as many for all as the
/// operator allows.
const MAX_OWN: usize = 4;

/// A guest's handle to a Redis.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Ways>);

#[derive(Debug)]
struct Ways {
    link: Arc<Link>,
    /// Once something was executed that may concern the connection itself: one nobody else has,
    /// until it is lost.
    own: Mutex<Option<Arc<Own>>>,
    /// How many more of those its instance may have.
    permits: Arc<Semaphore>,
    /// What its instance is charged for.
    held: MemoryBudget,
}

/// A connection of a handle's own.
#[derive(Debug)]
struct Own {
    connection: Connection,
    _permit: OwnedSemaphorePermit,
}

/// An instance's use of outbound Redis.
#[derive(Debug)]
pub struct RedisCtx {
    share: Arc<Share>,
    own: Arc<Semaphore>,
    held: MemoryBudget,
}

impl RedisCtx {
    #[must_use]
    pub fn new(share: Arc<Share>, held: MemoryBudget) -> Self {
        Self { share, own: Arc::new(Semaphore::new(MAX_OWN)), held }
    }
}

/// An instance's use of outbound Redis, borrowed for one call.
#[derive(Debug)]
pub struct RedisView<'a> {
    pub ctx: &'a mut RedisCtx,
    pub allowed: &'a OutboundHosts,
    pub table: &'a mut ResourceTable,
}

/// Why a guest has no connection.
enum Refused {
    InvalidAddress,
    TooMany,
    Failed(Error),
}

impl RedisView<'_> {
    /// The way to `address`, if the component may connect there.
    fn link(&self, address: &str) -> Result<Arc<Link>, Refused> {
        let address = Address::parse(address).map_err(|_| Refused::InvalidAddress)?;
        let Address { scheme, host, port, .. } = &address;
        if !self.allowed.allows(scheme, host, Some(*port)) {
            return Err(Refused::InvalidAddress);
        }
        self.ctx.share.link(&address).map_err(Refused::from)
    }

    fn keep(&mut self, link: Arc<Link>) -> Result<Resource<Handle>, Refused> {
        let (permits, held) = (Arc::clone(&self.ctx.own), self.ctx.held.clone());
        let handle = Handle(Arc::new(Ways { link, own: Mutex::default(), permits, held }));
        self.table.push(handle).map_err(|_| Refused::TooMany)
    }

    fn handle(&self, handle: &Resource<Handle>) -> Result<Handle> {
        Ok(self.table.get(handle)?.clone())
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        match error {
            Error::TooMany { .. } => Self::TooMany,
            error => Self::Failed(error),
        }
    }
}

impl Ways {
    /// The connection of the handle's own, if it has one. One that was lost is not made again in
    /// silence: what was set on it is gone, and whoever has set it has to know.
    async fn own(&self) -> Result<Option<Arc<Own>>, Error> {
        let mut own = self.own.lock().await;
        if own.take_if(|own| !own.connection.is_open()).is_some() {
            return Err(Error::Lost("the Redis has closed it".into()));
        }
        Ok(own.clone())
    }

    /// Makes one if there is none.
    async fn make_own(&self) -> Result<(), Error> {
        let mut own = self.own.lock().await;
        if own.is_none() {
            let permit = Arc::clone(&self.permits).try_acquire_owned();
            let _permit = permit.map_err(|_| Error::TooMany { most: MAX_OWN })?;
            let connection = self.link.own_connection().await?;
            *own = Some(Arc::new(Own { connection, _permit }));
        }
        Ok(())
    }

    /// Forgets the one that was lost.
    async fn forget(&self, lost: &Arc<Own>) {
        self.own.lock().await.take_if(|own| Arc::ptr_eq(own, lost));
    }
}

impl spin::Host for RedisView<'_> {}

impl spin::HostConnection for RedisView<'_> {
    fn drop(&mut self, handle: Resource<Handle>) -> Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl HasRedis {
    fn handle<T>(accessor: &Accessor<T, Self>, handle: &Resource<Handle>) -> Result<Handle> {
        accessor.with(|mut access| access.get().handle(handle))
    }
}

impl<T> spin::HostConnectionWithStore<T> for HasRedis {
    async fn open(
        accessor: &Accessor<T, Self>,
        address: String,
    ) -> Result<Result<Resource<Handle>, spin::Error>> {
        let link = match accessor.with(|mut access| access.get().link(&address)) {
            Ok(link) => link,
            Err(refused) => return Ok(Err(refused.into())),
        };
        if let Err(error) = link.connected().await {
            return Ok(Err(Refused::from(error).into()));
        }
        Ok(accessor.with(|mut access| access.get().keep(link)).map_err(Into::into))
    }

    async fn publish(
        accessor: &Accessor<T, Self>,
        handle: Resource<Handle>,
        channel: String,
        payload: Vec<u8>,
    ) -> Result<Result<(), spin::Error>> {
        let handle = Self::handle(accessor, &handle)?;
        Ok(handle.publish(&channel, &payload).await.map_err(Into::into))
    }

    async fn get(
        accessor: &Accessor<T, Self>,
        handle: Resource<Handle>,
        key: String,
    ) -> Result<Result<Option<Vec<u8>>, spin::Error>> {
        let handle = Self::handle(accessor, &handle)?;
        Ok(handle.answer(cmd("GET").arg(key)).await.map_err(Into::into))
    }

    async fn set(
        accessor: &Accessor<T, Self>,
        handle: Resource<Handle>,
        key: String,
        value: Vec<u8>,
    ) -> Result<Result<(), spin::Error>> {
        let handle = Self::handle(accessor, &handle)?;
        Ok(handle.answer(cmd("SET").arg(key).arg(value)).await.map_err(Into::into))
    }

    async fn incr(
        accessor: &Accessor<T, Self>,
        handle: Resource<Handle>,
        key: String,
    ) -> Result<Result<i64, spin::Error>> {
        let handle = Self::handle(accessor, &handle)?;
        Ok(handle.incr(&key).await.map_err(Into::into))
    }

    async fn del(
        accessor: &Accessor<T, Self>,
        handle: Resource<Handle>,
        keys: Vec<String>,
    ) -> Result<Result<u32, spin::Error>> {
        let handle = Self::handle(accessor, &handle)?;
        Ok(handle.answer(cmd("DEL").arg(keys)).await.map_err(Into::into))
    }

    async fn sadd(
        accessor: &Accessor<T, Self>,
        handle: Resource<Handle>,
        key: String,
        values: Vec<String>,
    ) -> Result<Result<u32, spin::Error>> {
        let handle = Self::handle(accessor, &handle)?;
        Ok(handle.answer(cmd("SADD").arg(key).arg(values)).await.map_err(Into::into))
    }

    async fn smembers(
        accessor: &Accessor<T, Self>,
        handle: Resource<Handle>,
        key: String,
    ) -> Result<Result<Vec<String>, spin::Error>> {
        let handle = Self::handle(accessor, &handle)?;
        Ok(handle.answer(cmd("SMEMBERS").arg(key)).await.map_err(Into::into))
    }

    async fn srem(
        accessor: &Accessor<T, Self>,
        handle: Resource<Handle>,
        key: String,
        values: Vec<String>,
    ) -> Result<Result<u32, spin::Error>> {
        let handle = Self::handle(accessor, &handle)?;
        Ok(handle.answer(cmd("SREM").arg(key).arg(values)).await.map_err(Into::into))
    }

    async fn execute(
        accessor: &Accessor<T, Self>,
        handle: Resource<Handle>,
        command: String,
        arguments: Vec<spin::RedisParameter>,
    ) -> Result<Result<Vec<spin::RedisResult>, spin::Error>> {
        let handle = Self::handle(accessor, &handle)?;
        let arguments = arguments.into_iter().map(Into::into).collect();
        let answer = handle.execute(&command, arguments).await.map_err(Into::into);
        Ok(answer.map(|flat| flat.into_iter().map(Into::into).collect()))
    }
}

impl fermyon::Host for RedisView<'_> {}

impl fermyon::HostConnection for RedisView<'_> {
    async fn open(&mut self, address: String) -> Result<Result<Resource<Handle>, fermyon::Error>> {
        let link = match self.link(&address) {
            Ok(link) => link,
            Err(refused) => return Ok(Err(refused.into())),
        };
        if let Err(error) = link.connected().await {
            return Ok(Err(Refused::from(error).into()));
        }
        Ok(self.keep(link).map_err(Into::into))
    }

    async fn publish(
        &mut self,
        handle: Resource<Handle>,
        channel: String,
        payload: Vec<u8>,
    ) -> Result<Result<(), fermyon::Error>> {
        Ok(self.handle(&handle)?.publish(&channel, &payload).await.map_err(Into::into))
    }

    async fn get(
        &mut self,
        handle: Resource<Handle>,
        key: String,
    ) -> Result<Result<Option<Vec<u8>>, fermyon::Error>> {
        Ok(self.handle(&handle)?.answer(cmd("GET").arg(key)).await.map_err(Into::into))
    }

    async fn set(
        &mut self,
        handle: Resource<Handle>,
        key: String,
        value: Vec<u8>,
    ) -> Result<Result<(), fermyon::Error>> {
        let set = cmd("SET").arg(key).arg(value).take();
        Ok(self.handle(&handle)?.answer(&set).await.map_err(Into::into))
    }

    async fn incr(
        &mut self,
        handle: Resource<Handle>,
        key: String,
    ) -> Result<Result<i64, fermyon::Error>> {
        Ok(self.handle(&handle)?.incr(&key).await.map_err(Into::into))
    }

    async fn del(
        &mut self,
        handle: Resource<Handle>,
        keys: Vec<String>,
    ) -> Result<Result<u32, fermyon::Error>> {
        Ok(self.handle(&handle)?.answer(cmd("DEL").arg(keys)).await.map_err(Into::into))
    }

    async fn sadd(
        &mut self,
        handle: Resource<Handle>,
        key: String,
        values: Vec<String>,
    ) -> Result<Result<u32, fermyon::Error>> {
        let sadd = cmd("SADD").arg(key).arg(values).take();
        Ok(self.handle(&handle)?.answer(&sadd).await.map_err(Into::into))
    }

    async fn smembers(
        &mut self,
        handle: Resource<Handle>,
        key: String,
    ) -> Result<Result<Vec<String>, fermyon::Error>> {
        Ok(self.handle(&handle)?.answer(cmd("SMEMBERS").arg(key)).await.map_err(Into::into))
    }

    async fn srem(
        &mut self,
        handle: Resource<Handle>,
        key: String,
        values: Vec<String>,
    ) -> Result<Result<u32, fermyon::Error>> {
        let srem = cmd("SREM").arg(key).arg(values).take();
        Ok(self.handle(&handle)?.answer(&srem).await.map_err(Into::into))
    }

    async fn execute(
        &mut self,
        handle: Resource<Handle>,
        command: String,
        arguments: Vec<fermyon::RedisParameter>,
    ) -> Result<Result<Vec<fermyon::RedisResult>, fermyon::Error>> {
        let arguments = arguments.into_iter().map(Into::into).collect();
        let answer = self.handle(&handle)?.execute(&command, arguments).await;
        let answer = answer.map_err(Into::into);
        Ok(answer.map(|flat| flat.into_iter().map(Into::into).collect()))
    }

    fn drop(&mut self, handle: Resource<Handle>) -> Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

/// The types of both interfaces are the same but for their names.
macro_rules! types_of {
    ($interface:ident) => {
        impl From<Refused> for $interface::Error {
            fn from(refused: Refused) -> Self {
                match refused {
                    Refused::InvalidAddress => Self::InvalidAddress,
                    Refused::TooMany => Self::TooManyConnections,
                    Refused::Failed(error) => error.into(),
                }
            }
        }

        impl From<Error> for $interface::Error {
            fn from(error: Error) -> Self {
                match error {
                    Error::TooMany { .. } => Self::TooManyConnections,
                    Error::Type(_) => Self::TypeError,
                    Error::Late | Error::Lost(_) | Error::Connect(_) | Error::Command(_) => {
                        Self::Other(error.to_string())
                    }
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

types_of!(spin);
types_of!(fermyon);

struct HasRedis;

impl HasData for HasRedis {
    type Data<'a> = RedisView<'a>;
}

/// Lets guests import outbound Redis.
pub fn add_to_linker(linker: &mut Linker<InstanceState>) -> Result<()> {
    spin::add_to_linker::<_, HasRedis>(linker, InstanceState::redis)?;
    fermyon::add_to_linker::<_, HasRedis>(linker, InstanceState::redis)
}
