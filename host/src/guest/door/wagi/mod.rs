//! The Wagi door: a command (`wasi:cli/run` 0.2) that reads the request as CGI does, and prints the
//! response. Each request has an instance of its own.

mod cgi;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use tokio::time::timeout_at;
use tracing::warn;
use wasmtime::Store;
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p2::bindings::{Command, CommandPre};
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};

use super::{InstancePool, deadline_exceeded, invalid_response};
use crate::guest::instance::{
    CommandInput, InstanceState, StoreFactory, is_deadline_exceeded, is_pool_full,
};
use crate::guest::offload::GuestOffload;
use crate::http::body::Body;
use crate::http::body::instance_body::EndBodiesOnDrop;
use crate::http::error::Failure;
use crate::http::spin_headers::RequestOrigin;
use crate::metrics::Ended;

pub use cgi::DEFAULT_ARGV;

/// The component, ready to be instantiated behind this door.
pub type WagiPre = CommandPre<InstanceState>;

/// Prefix of the export of a command.
pub const EXPORT: &str = "wasi:cli/run@0.2.";

/// Maximum size of what a command prints, in bytes.
const MAX_OUTPUT: usize = 16 << 20;

/// A component behind the Wagi door.
pub struct WagiDoor {
    pre: WagiPre,
    argv: String,
    stores: Arc<StoreFactory>,
    offload: GuestOffload,
    pool: Arc<InstancePool>,
}

impl std::fmt::Debug for WagiDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WagiDoor").field("argv", &self.argv).finish_non_exhaustive()
    }
}

impl WagiDoor {
    #[must_use]
    pub fn new(
        pre: &WagiPre,
        argv: &str,
        stores: &Arc<StoreFactory>,
        offload: GuestOffload,
        pool: &Arc<InstancePool>,
    ) -> Arc<Self> {
        Arc::new(Self {
            pre: pre.clone(),
            argv: argv.to_owned(),
            stores: Arc::clone(stores),
            offload,
            pool: Arc::clone(pool),
        })
    }

    /// Runs the command for a request.
    pub async fn invoke(
        self: &Arc<Self>,
        head: Parts,
        body: Bytes,
        deadline: Instant,
        origin: &RequestOrigin<'_>,
    ) -> Result<Response<Body>, Failure> {
        let input = CommandInput {
            arguments: cgi::arguments(&self.argv, &head),
            environment: cgi::environment(&head, body.len(), origin),
            stdin: MemoryInputPipe::new(body),
            // One byte more than a response may have: output that ends there is not complete.
            stdout: MemoryOutputPipe::new(MAX_OUTPUT + 1),
        };
        let hops = origin.client.hops + 1;
        let door = Arc::clone(self);
        let running =
            self.offload.run(Box::pin(async move { door.run(input, hops, deadline).await }));
        let spec = self.stores.spec();
        let output = match timeout_at(deadline.into(), running).await {
            Ok(Ok(Ok(output))) => output,
            Ok(Ok(Err(error))) if is_deadline_exceeded(&error) => {
                return Err(deadline_exceeded(spec));
            }
            Err(_) => return Err(deadline_exceeded(spec)),
            Ok(Ok(Err(error))) if is_pool_full(&error) => return Err(Failure::InstancePoolFull),
            Ok(Ok(Err(error))) => return Err(self.failed(format_args!("{error:#}"))),
            Ok(Err(lost)) => return Err(self.failed(format_args!("{lost}"))),
        };
        if output.len() > MAX_OUTPUT {
            let problem = format!("its output is larger than {MAX_OUTPUT} bytes");
            return Err(invalid_response(spec, problem));
        }
        let response = cgi::response(&output).map_err(|problem| invalid_response(spec, problem))?;
        Ok(response.map(Body::whole))
    }

    /// The output of the command.
    async fn run(
        &self,
        input: CommandInput,
        hops: usize,
        deadline: Instant,
    ) -> wasmtime::Result<Bytes> {
        let start = Instant::now();
        let instantiate = || self.instantiate(&input, deadline);
        let (mut store, command) = self.pool.instantiate(instantiate).await?;
        // Dropped before the store, which is declared first.
        let _bodies = EndBodiesOnDrop(Arc::clone(&store.data().bodies));
        store.data_mut().record_instantiated(start.elapsed());
        store.data_mut().outbound.hops = hops;
        let result = command.wasi_cli_run().call_run(&mut store).await;
        let result = match result {
            Err(error) if error.downcast_ref::<I32Exit>().is_some_and(|exit| exit.0 == 0) => {
                Ok(Ok(()))
            }
            result => result,
        };
        // Without a record, the end is that of the deadline.
        if !result.as_ref().is_err_and(is_deadline_exceeded) {
            let ended = if matches!(result, Ok(Ok(()))) { Ended::Retired } else { Ended::Failed };
            store.data_mut().record_end(ended);
        }
        if let Err(()) = result? {
            // As in Spin: what it printed is the response all the same.
            warn!(component = self.stores.spec().id, "the command returned an error");
        }
        Ok(input.stdout.contents())
    }

    async fn instantiate(
        &self,
        input: &CommandInput,
        deadline: Instant,
    ) -> wasmtime::Result<(Store<InstanceState>, Command)> {
        let mut store = self.stores.create_for_command(deadline, input)?;
        let command = self.pre.instantiate_async(&mut store).await?;
        Ok((store, command))
    }

    fn failed(&self, error: std::fmt::Arguments<'_>) -> Failure {
        let component = self.stores.spec().id.clone();
        warn!(component, %error, "failed");
        Failure::Trap { component }
    }
}
