//! What outlives a request on behalf of a component: key-value stores and Redis.

pub mod key_value;
pub mod redis;
