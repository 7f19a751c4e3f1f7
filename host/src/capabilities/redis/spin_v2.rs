//! `fermyon:spin/redis@2.0.0`: one call at a time.

use redis::cmd;
use wasmtime::Result;
use wasmtime::component::Resource;

use super::generated::fermyon::spin::redis as wit;
use super::{ConnectError, RedisHandle, RedisView};

impl wit::Host for RedisView<'_> {}

impl wit::HostConnection for RedisView<'_> {
    async fn open(&mut self, address: String) -> Result<Result<Resource<RedisHandle>, wit::Error>> {
        let client = match self.client(&address) {
            Ok(client) => client,
            Err(error) => return Ok(Err(error.into())),
        };
        if let Err(error) = client.connect().await {
            return Ok(Err(ConnectError::from(error).into()));
        }
        Ok(self.open_handle(client).map_err(Into::into))
    }

    async fn publish(
        &mut self,
        handle: Resource<RedisHandle>,
        channel: String,
        payload: Vec<u8>,
    ) -> Result<Result<(), wit::Error>> {
        Ok(self.handle(&handle)?.publish(&channel, &payload).await.map_err(Into::into))
    }

    async fn get(
        &mut self,
        handle: Resource<RedisHandle>,
        key: String,
    ) -> Result<Result<Option<Vec<u8>>, wit::Error>> {
        Ok(self.handle(&handle)?.query(cmd("GET").arg(key)).await.map_err(Into::into))
    }

    async fn set(
        &mut self,
        handle: Resource<RedisHandle>,
        key: String,
        value: Vec<u8>,
    ) -> Result<Result<(), wit::Error>> {
        let set = cmd("SET").arg(key).arg(value).take();
        Ok(self.handle(&handle)?.query(&set).await.map_err(Into::into))
    }

    async fn incr(
        &mut self,
        handle: Resource<RedisHandle>,
        key: String,
    ) -> Result<Result<i64, wit::Error>> {
        Ok(self.handle(&handle)?.incr(&key).await.map_err(Into::into))
    }

    async fn del(
        &mut self,
        handle: Resource<RedisHandle>,
        keys: Vec<String>,
    ) -> Result<Result<u32, wit::Error>> {
        Ok(self.handle(&handle)?.query(cmd("DEL").arg(keys)).await.map_err(Into::into))
    }

    async fn sadd(
        &mut self,
        handle: Resource<RedisHandle>,
        key: String,
        values: Vec<String>,
    ) -> Result<Result<u32, wit::Error>> {
        let sadd = cmd("SADD").arg(key).arg(values).take();
        Ok(self.handle(&handle)?.query(&sadd).await.map_err(Into::into))
    }

    async fn smembers(
        &mut self,
        handle: Resource<RedisHandle>,
        key: String,
    ) -> Result<Result<Vec<String>, wit::Error>> {
        Ok(self.handle(&handle)?.query(cmd("SMEMBERS").arg(key)).await.map_err(Into::into))
    }

    async fn srem(
        &mut self,
        handle: Resource<RedisHandle>,
        key: String,
        values: Vec<String>,
    ) -> Result<Result<u32, wit::Error>> {
        let srem = cmd("SREM").arg(key).arg(values).take();
        Ok(self.handle(&handle)?.query(&srem).await.map_err(Into::into))
    }

    async fn execute(
        &mut self,
        handle: Resource<RedisHandle>,
        command: String,
        arguments: Vec<wit::RedisParameter>,
    ) -> Result<Result<Vec<wit::RedisResult>, wit::Error>> {
        let arguments = arguments.into_iter().map(Into::into).collect();
        let reply = self.handle(&handle)?.execute(&command, arguments).await;
        let reply = reply.map_err(Into::into);
        Ok(reply.map(|flat| flat.into_iter().map(Into::into).collect()))
    }

    fn drop(&mut self, handle: Resource<RedisHandle>) -> Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}
