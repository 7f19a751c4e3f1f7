//! Storage that outlives a request: key-value stores, SQLite databases, and connections to Redis, PostgreSQL and MQTT
//! brokers.

pub mod key_value;
pub mod mqtt;
pub mod postgres;
pub mod redis;
pub mod sqlite;
