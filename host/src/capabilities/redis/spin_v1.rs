//! `fermyon:spin/redis` of Spin 1: each call has the address.

use redis::{Cmd, FromRedisValue, cmd};
use wasmtime::Result;

use super::commands::{Argument, Flat};
use super::{RedisHandle, RedisView};
use crate::capabilities::spin_1::wit::redis::{self as wit, Error};
use crate::capabilities::spin_1::wit::redis_types::{RedisParameter, RedisResult};
use crate::storage::redis::RedisError;

impl RedisView<'_> {
    /// The client of `address`. The error of this version tells nothing about the reason.
    fn at(&self, address: &str) -> Result<RedisHandle, Error> {
        self.client(address).map(|client| self.new_handle(client)).map_err(|_| Error::Error)
    }
}

/// The result of a command for the guest.
fn convert<T>(result: Result<T, RedisError>) -> Result<Result<T, Error>> {
    Ok(result.map_err(|_| Error::Error))
}

impl wit::Host for RedisView<'_> {
    async fn publish(
        &mut self,
        address: String,
        channel: String,
        payload: Vec<u8>,
    ) -> Result<Result<(), Error>> {
        match self.at(&address) {
            Ok(redis) => convert(redis.publish(&channel, &payload).await),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn get(&mut self, address: String, key: String) -> Result<Result<Vec<u8>, Error>> {
        let value: Option<Vec<u8>> = match self.at(&address) {
            Ok(redis) => match redis.query(cmd("GET").arg(key)).await {
                Ok(value) => value,
                Err(_) => return Ok(Err(Error::Error)),
            },
            Err(error) => return Ok(Err(error)),
        };
        Ok(Ok(value.unwrap_or_default()))
    }

    async fn set(
        &mut self,
        address: String,
        key: String,
        value: Vec<u8>,
    ) -> Result<Result<(), Error>> {
        run(self.at(&address), cmd("SET").arg(key).arg(value)).await
    }

    async fn incr(&mut self, address: String, key: String) -> Result<Result<i64, Error>> {
        match self.at(&address) {
            Ok(redis) => convert(redis.incr(&key).await),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn del(&mut self, address: String, keys: Vec<String>) -> Result<Result<i64, Error>> {
        run(self.at(&address), cmd("DEL").arg(keys)).await
    }

    async fn sadd(
        &mut self,
        address: String,
        key: String,
        values: Vec<String>,
    ) -> Result<Result<i64, Error>> {
        run(self.at(&address), cmd("SADD").arg(key).arg(values)).await
    }

    async fn smembers(
        &mut self,
        address: String,
        key: String,
    ) -> Result<Result<Vec<String>, Error>> {
        run(self.at(&address), cmd("SMEMBERS").arg(key)).await
    }

    async fn srem(
        &mut self,
        address: String,
        key: String,
        values: Vec<String>,
    ) -> Result<Result<i64, Error>> {
        run(self.at(&address), cmd("SREM").arg(key).arg(values)).await
    }

    async fn execute(
        &mut self,
        address: String,
        command: String,
        arguments: Vec<RedisParameter>,
    ) -> Result<Result<Vec<RedisResult>, Error>> {
        let arguments = arguments.into_iter().map(Into::into).collect();
        let reply = match self.at(&address) {
            Ok(redis) => convert(redis.execute(&command, arguments).await)?,
            Err(error) => Err(error),
        };
        Ok(reply.map(|flat| flat.into_iter().map(Into::into).collect()))
    }
}

async fn run<T: FromRedisValue>(
    redis: Result<RedisHandle, Error>,
    command: &Cmd,
) -> Result<Result<T, Error>> {
    match redis {
        Ok(redis) => convert(redis.query(command).await),
        Err(error) => Ok(Err(error)),
    }
}

impl From<RedisParameter> for Argument {
    fn from(parameter: RedisParameter) -> Self {
        match parameter {
            RedisParameter::Int64(number) => Self::Number(number),
            RedisParameter::Binary(bytes) => Self::Bytes(bytes),
        }
    }
}

impl From<Flat> for RedisResult {
    fn from(flat: Flat) -> Self {
        match flat {
            Flat::Nil => Self::Nil,
            Flat::Status(text) => Self::Status(text),
            Flat::Number(number) => Self::Int64(number),
            Flat::Bytes(bytes) => Self::Binary(bytes),
        }
    }
}
