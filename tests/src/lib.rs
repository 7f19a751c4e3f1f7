//! The harness: starts the real binary on a free port, sends HTTP requests to it, and prints its log if a
//! test fails. Waits are for conditions, with [`PATIENCE`] as their limit.

mod client;
mod command;
mod faulty_redis;
mod host;
mod launch;
mod log;
mod manifest;
mod mosquitto;
mod oci_registry;
mod paths;
mod postgres;
mod redis;
mod wait;

pub use client::{Client, Response};
pub use command::{run, run_in};
pub use faulty_redis::{FaultScope, FaultyRedis, LARGE_STRING, RedisFault};
pub use host::Spinfer;
pub use launch::Launch;
pub use manifest::{Manifest, STANDARD_DOOR};
pub use mosquitto::{Mosquitto, Subscription};
pub use oci_registry::{OciRegistry, PASSWORD as OCI_PASSWORD, USER as OCI_USER};
pub use paths::{CORE_MODULES, GUESTS, binary, create_state_dir, root, state_dir};
pub use postgres::{PASSWORD as POSTGRES_PASSWORD, Postgres, USER as POSTGRES_USER};
pub use redis::{Redis, RedisCluster};
pub use wait::{PATIENCE, wait_until, wait_up_to};
