//! Storage that outlives a request: key-value stores, SQLite databases, and connections to Redis.

pub mod key_value;
pub mod redis;
pub mod sqlite;
