//! Capabilities: what a guest may import in addition to plain WASI, one module per interface.
//!
//! Each has the same shape: the generated bindings, the state in the store (`Ctx`), a borrowed view of
//! it (`View`), the traits of the interface on the view, and `add_to_linker` last. The exceptions are
//! [`outbound_http`], [`wasi_http`] and [`sockets`], whose bindings are wasmtime's: they only decide what
//! is allowed, and send requests.

pub mod key_value;
pub mod mqtt;
pub mod nn;
pub mod outbound_http;
pub mod postgres;
pub mod prediction_log;
pub mod redis;
pub mod sockets;
pub mod spin_1;
pub mod sqlite;
pub mod variables;
pub mod wasi_http;
pub mod wasi_http_2023;
pub mod wasi_keyvalue;

/// Name of the setting that limits the memory which the host holds for an instance.
pub const INSTANCE_MEMORY: &str = "limits.instance_memory";
