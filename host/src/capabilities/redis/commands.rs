//! The commands of outbound Redis, and the connection that each is sent over.

use redis::{Arg, Cmd, FromRedisValue, Value, cmd};

use super::RedisHandle;
use crate::storage::redis::RedisError;

/// Commands that do not block and leave the state of their connection unchanged, so that it can be
/// shared.
const SHARED: &str = "
    APPEND BITCOUNT BITFIELD BITFIELD_RO BITOP BITPOS COPY DBSIZE DECR DECRBY DEL ECHO EVAL EVALSHA
    EVALSHA_RO EVAL_RO EXISTS EXPIRE EXPIREAT EXPIRETIME FCALL FCALL_RO GEOADD GEODIST GEOHASH GEOPOS
    GEOSEARCH GEOSEARCHSTORE GET GETBIT GETDEL GETEX GETRANGE GETSET HDEL HEXISTS HGET HGETALL HINCRBY
    HINCRBYFLOAT HKEYS HLEN HMGET HMSET HRANDFIELD HSCAN HSET HSETNX HSTRLEN HVALS INCR INCRBY
    INCRBYFLOAT KEYS LINDEX LINSERT LLEN LMOVE LMPOP LPOP LPOS LPUSH LPUSHX LRANGE LREM LSET LTRIM
    MGET MSET MSETNX PERSIST PEXPIRE PEXPIREAT PEXPIRETIME PFADD PFCOUNT PFMERGE PING PSETEX PTTL
    PUBLISH RENAME RENAMENX RPOP RPOPLPUSH RPUSH RPUSHX SADD SCAN SCARD SDIFF SDIFFSTORE SET SETBIT
    SETEX SETNX SETRANGE SINTER SINTERCARD SINTERSTORE SISMEMBER SMEMBERS SMISMEMBER SMOVE SORT
    SORT_RO SPOP SPUBLISH SRANDMEMBER SREM SSCAN STRLEN SUNION SUNIONSTORE TIME TOUCH TTL TYPE UNLINK
    XACK XADD XDEL XLEN XPENDING XRANGE XREVRANGE XTRIM ZADD ZCARD ZCOUNT ZDIFF ZDIFFSTORE ZINCRBY
    ZINTER ZINTERCARD ZINTERSTORE ZLEXCOUNT ZMPOP ZMSCORE ZPOPMAX ZPOPMIN ZRANDMEMBER ZRANGE
    ZRANGEBYLEX ZRANGEBYSCORE ZRANGESTORE ZRANK ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE
    ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE ZUNION ZUNIONSTORE";
/// Commands after which a connection no longer sends one reply for each command.
const REFUSED: &str = "MONITOR PSUBSCRIBE PSYNC SSUBSCRIBE SUBSCRIBE SYNC";

impl RedisHandle {
    /// Sends a command, over the handle's own connection if it has one. Returns the reply.
    pub(super) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        // Concurrent commands hold arguments too, so each is charged.
        let bytes = command.args_iter().map(|argument| match argument {
            Arg::Simple(bytes) => bytes.len(),
            _ => 0,
        });
        let charge = self.0.memory.charge(bytes.sum());
        let _charge = charge.map_err(|error| RedisError::Command(error.to_string()))?;
        let Some(own) = self.0.own().await? else { return self.0.client.query(command).await };
        match own.connection.query(command).await {
            Err(error) if !own.connection.is_open() => {
                self.0.remove(&own).await;
                Err(RedisError::Lost(error.to_string()))
            }
            result => result,
        }
    }

    pub(super) async fn publish(&self, channel: &str, payload: &[u8]) -> Result<(), RedisError> {
        let _receivers: i64 = self.query(cmd("PUBLISH").arg(channel).arg(payload)).await?;
        Ok(())
    }

    pub(super) async fn incr(&self, key: &str) -> Result<i64, RedisError> {
        let sum = self.query(cmd("INCR").arg(key)).await;
        sum.map_err(|error| match error {
            // The error for a string that is not a number has no code of its own.
            RedisError::Command(problem) if problem.contains("not an integer") => {
                RedisError::Type(problem)
            }
            error => error,
        })
    }

    /// Sends any command. Returns the flattened reply.
    pub(super) async fn execute(
        &self,
        command: &str,
        arguments: Vec<Argument>,
    ) -> Result<Vec<Flat>, RedisError> {
        let name = command.to_ascii_uppercase();
        let is_reply_mode = |argument: &Argument| match argument {
            Argument::Bytes(bytes) => bytes.eq_ignore_ascii_case(b"REPLY"),
            Argument::Number(_) => false,
        };
        let is_in = |names: &str| names.split_ascii_whitespace().any(|known| known == name);
        if is_in(REFUSED) || name == "CLIENT" && arguments.first().is_some_and(is_reply_mode) {
            return Err(RedisError::Command(format!(
                "{name} is not supported by this interface, which returns one reply for each command"
            )));
        }
        let mut complete = cmd(command);
        for argument in arguments {
            match argument {
                Argument::Number(number) => complete.arg(number),
                Argument::Bytes(bytes) => complete.arg(bytes),
            };
        }
        if !is_in(SHARED) {
            self.0.ensure_own().await?;
        }
        let mut flat = Vec::new();
        flatten(self.query(&complete).await?, &mut flat)?;
        Ok(flat)
    }
}

/// An argument of a command, of either interface.
pub(super) enum Argument {
    Number(i64),
    Bytes(Vec<u8>),
}

/// A value of a flattened reply.
#[derive(Debug, PartialEq)]
pub(super) enum Flat {
    Nil,
    Status(String),
    Number(i64),
    Bytes(Vec<u8>),
}

/// Appends the values in `value`, with nested lists in place.
fn flatten(value: Value, flat: &mut Vec<Flat>) -> Result<(), RedisError> {
    flat.push(match value {
        Value::Nil => Flat::Nil,
        Value::Int(number) => Flat::Number(number),
        Value::Boolean(yes) => Flat::Number(yes.into()),
        Value::BulkString(bytes) => Flat::Bytes(bytes),
        Value::Okay => Flat::Status("OK".into()),
        Value::SimpleString(text) => Flat::Status(text),
        Value::Double(number) => Flat::Bytes(number.to_string().into_bytes()),
        Value::VerbatimString { text, .. } => Flat::Bytes(text.into_bytes()),
        Value::Array(values) | Value::Set(values) => {
            return values.into_iter().try_for_each(|value| flatten(value, flat));
        }
        Value::Map(pairs) => {
            let values = pairs.into_iter().flat_map(|(key, value)| [key, value]);
            return values.into_iter().try_for_each(|value| flatten(value, flat));
        }
        Value::Attribute { data, .. } => return flatten(*data, flat),
        Value::ServerError(error) => return Err(RedisError::Command(error.to_string())),
        _ => return Err(RedisError::Type("the interface has no such type".into())),
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_reply_is_flattened() {
        let bytes = |text: &str| Value::BulkString(text.into());
        let nested = Value::Array(vec![
            Value::Int(1),
            Value::Array(vec![bytes("a"), Value::Nil, Value::Array(vec![])]),
            Value::Map(vec![(bytes("k"), Value::Double(0.5))]),
            Value::Set(vec![Value::Boolean(true), Value::SimpleString("QUEUED".into())]),
            Value::Okay,
        ]);
        let mut flat = Vec::new();
        flatten(nested, &mut flat).unwrap();
        let expected = [
            Flat::Number(1),
            Flat::Bytes(b"a".to_vec()),
            Flat::Nil,
            Flat::Bytes(b"k".to_vec()),
            Flat::Bytes(b"0.5".to_vec()),
            Flat::Number(1),
            Flat::Status("QUEUED".into()),
            Flat::Status("OK".into()),
        ];
        assert_eq!(flat, expected);
    }
}
