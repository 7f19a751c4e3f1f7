//! Storage that outlives a request: key-value stores, and connections to Redis.

pub mod key_value;
pub mod redis;
