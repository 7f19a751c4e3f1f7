//! Storage that outlives a request: key-value stores, SQLite databases, and connections to Redis and MQTT brokers.

pub mod key_value;
pub mod mqtt;
pub mod redis;
pub mod sqlite;
