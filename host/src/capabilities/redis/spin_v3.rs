//! `spin:redis@3.0.0`: concurrent calls.

use redis::cmd;
use wasmtime::Result;
use wasmtime::component::{Accessor, Resource};

use super::generated::spin::redis::redis as wit;
use super::{ConnectError, HasRedis, RedisHandle, RedisView};

impl wit::Host for RedisView<'_> {}

impl wit::HostConnection for RedisView<'_> {
    fn drop(&mut self, handle: Resource<RedisHandle>) -> Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl HasRedis {
    fn handle<T>(
        accessor: &Accessor<T, Self>,
        handle: &Resource<RedisHandle>,
    ) -> Result<RedisHandle> {
        accessor.with(|mut access| access.get().handle(handle))
    }
}

impl<T> wit::HostConnectionWithStore<T> for HasRedis {
    async fn open(
        accessor: &Accessor<T, Self>,
        address: String,
    ) -> Result<Result<Resource<RedisHandle>, wit::Error>> {
        let client = match accessor.with(|mut access| access.get().client(&address)) {
            Ok(client) => client,
            Err(error) => return Ok(Err(error.into())),
        };
        if let Err(error) = client.connect().await {
            return Ok(Err(ConnectError::from(error).into()));
        }
        Ok(accessor.with(|mut access| access.get().open_handle(client)).map_err(Into::into))
    }

    async fn publish(
        accessor: &Accessor<T, Self>,
        handle: Resource<RedisHandle>,
        channel: String,
        payload: Vec<u8>,
    ) -> Result<Result<(), wit::Error>> {
        let handle = Self::handle(accessor, &handle)?;
        Ok(handle.publish(&channel, &payload).await.map_err(Into::into))
    }

    async fn get(
        accessor: &Accessor<T, Self>,
        handle: Resource<RedisHandle>,
        key: String,
    ) -> Result<Result<Option<Vec<u8>>, wit::Error>> {
        let handle = Self::handle(accessor, &handle)?;
        Ok(handle.query(cmd("GET").arg(key)).await.map_err(Into::into))
    }

    async fn set(
        accessor: &Accessor<T, Self>,
        handle: Resource<RedisHandle>,
        key: String,
        value: Vec<u8>,
    ) -> Result<Result<(), wit::Error>> {
        let handle = Self::handle(accessor, &handle)?;
        Ok(handle.query(cmd("SET").arg(key).arg(value)).await.map_err(Into::into))
    }

    async fn incr(
        accessor: &Accessor<T, Self>,
        handle: Resource<RedisHandle>,
        key: String,
    ) -> Result<Result<i64, wit::Error>> {
        let handle = Self::handle(accessor, &handle)?;
        Ok(handle.incr(&key).await.map_err(Into::into))
    }

    async fn del(
        accessor: &Accessor<T, Self>,
        handle: Resource<RedisHandle>,
        keys: Vec<String>,
    ) -> Result<Result<u32, wit::Error>> {
        let handle = Self::handle(accessor, &handle)?;
        Ok(handle.query(cmd("DEL").arg(keys)).await.map_err(Into::into))
    }

    async fn sadd(
        accessor: &Accessor<T, Self>,
        handle: Resource<RedisHandle>,
        key: String,
        values: Vec<String>,
    ) -> Result<Result<u32, wit::Error>> {
        let handle = Self::handle(accessor, &handle)?;
        Ok(handle.query(cmd("SADD").arg(key).arg(values)).await.map_err(Into::into))
    }

    async fn smembers(
        accessor: &Accessor<T, Self>,
        handle: Resource<RedisHandle>,
        key: String,
    ) -> Result<Result<Vec<String>, wit::Error>> {
        let handle = Self::handle(accessor, &handle)?;
        Ok(handle.query(cmd("SMEMBERS").arg(key)).await.map_err(Into::into))
    }

    async fn srem(
        accessor: &Accessor<T, Self>,
        handle: Resource<RedisHandle>,
        key: String,
        values: Vec<String>,
    ) -> Result<Result<u32, wit::Error>> {
        let handle = Self::handle(accessor, &handle)?;
        Ok(handle.query(cmd("SREM").arg(key).arg(values)).await.map_err(Into::into))
    }

    async fn execute(
        accessor: &Accessor<T, Self>,
        handle: Resource<RedisHandle>,
        command: String,
        arguments: Vec<wit::RedisParameter>,
    ) -> Result<Result<Vec<wit::RedisResult>, wit::Error>> {
        let handle = Self::handle(accessor, &handle)?;
        let arguments = arguments.into_iter().map(Into::into).collect();
        let reply = handle.execute(&command, arguments).await.map_err(Into::into);
        Ok(reply.map(|flat| flat.into_iter().map(Into::into).collect()))
    }
}
