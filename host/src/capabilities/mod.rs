//! What a guest may import beside plain WASI, one file per interface, each of the same shape:
//! bindings, state in the store, a borrowed view of it, the interface's traits on the view, and
//! `add_to_linker` last.

pub mod key_value;
pub mod nn;
pub mod outbound_http;
pub mod prediction_log;
pub mod redis;
pub mod sockets;
pub mod variables;
pub mod wasi_keyvalue;

/// The setting that bounds what the host holds in memory for an instance.
pub const INSTANCE_MEMORY: &str = "limits.instance_memory";
