//! The commands of outbound Redis, and over which connection each goes.

use redis::{Arg, Cmd, FromRedisValue, Value, cmd};

use super::Handle;
use crate::storage::redis::Error;

/// Commands that answer at once and leave nothing behind on their connection, so that others may use
/// it.
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
/// Commands after which a connection answers no more as this interface takes it.
const REFUSED: &str = "MONITOR PSUBSCRIBE PSYNC SSUBSCRIBE SUBSCRIBE SYNC";

impl Handle {
    pub(super) async fn answer<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        // Others may be under way, each with arguments of its own.
        let bytes = command.args_iter().map(|argument| match argument {
            Arg::Simple(bytes) => bytes.len(),
            _ => 0,
        });
        let held = self.0.held.charge(bytes.sum());
        let _held = held.map_err(|error| Error::Command(error.to_string()))?;
        let Some(own) = self.0.own().await? else { return self.0.link.answer(command).await };
        match own.connection.answer(command).await {
            Err(error) if !own.connection.is_open() => {
                self.0.forget(&own).await;
                Err(Error::Lost(error.to_string()))
            }
            answer => answer,
        }
    }

    pub(super) async fn publish(&self, channel: &str, payload: &[u8]) -> Result<(), Error> {
        let _receivers: i64 = self.answer(cmd("PUBLISH").arg(channel).arg(payload)).await?;
        Ok(())
    }

    pub(super) async fn incr(&self, key: &str) -> Result<i64, Error> {
        let sum = self.answer(cmd("INCR").arg(key)).await;
        sum.map_err(|error| match error {
            // What it says of a value that is a string of something else.
            Error::Command(problem) if problem.contains("not an integer") => Error::Type(problem),
            error => error,
        })
    }

    /// Any command, its answer flattened.
    pub(super) async fn execute(
        &self,
        command: &str,
        arguments: Vec<Argument>,
    ) -> Result<Vec<Flat>, Error> {
        let name = command.to_ascii_uppercase();
        let silent = |argument: &Argument| match argument {
            Argument::Bytes(bytes) => bytes.eq_ignore_ascii_case(b"REPLY"),
            Argument::Number(_) => false,
        };
        let among = |names: &str| names.split_ascii_whitespace().any(|known| known == name);
        if among(REFUSED) || name == "CLIENT" && arguments.first().is_some_and(silent) {
            return Err(Error::Command(format!(
                "{name} is not for this interface: it answers each command with one value"
            )));
        }
        let mut whole = cmd(command);
        for argument in arguments {
            match argument {
                Argument::Number(number) => whole.arg(number),
                Argument::Bytes(bytes) => whole.arg(bytes),
            };
        }
        if !among(SHARED) {
            self.0.make_own().await?;
        }
        let mut flat = Vec::new();
        flatten(self.answer(&whole).await?, &mut flat)?;
        Ok(flat)
    }
}

/// An argument of a command, whichever interface it came by.
pub(super) enum Argument {
    Number(i64),
    Bytes(Vec<u8>),
}

/// A value within an answer.
#[derive(Debug, PartialEq)]
pub(super) enum Flat {
    Nil,
    Status(String),
    Number(i64),
    Bytes(Vec<u8>),
}

/// Appends what is in `value`, lists within lists one after the other.
fn flatten(value: Value, flat: &mut Vec<Flat>) -> Result<(), Error> {
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
        Value::ServerError(error) => return Err(Error::Command(error.to_string())),
        _ => return Err(Error::Type("it is of a kind this interface has not".into())),
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_flattened() {
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
