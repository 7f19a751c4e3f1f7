//! The assignment door: a router says which component serves a request, and the host hands the request
//! on by itself. One typed call, in which no body is copied that does not decide.

use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use http::header::HeaderName;
use http::request::Parts;
use wasmtime::{Store, bail};

use super::instances::{Guest, Instance, Instances};
use super::{Doors, GivesWay, Leaving};
use crate::guest::offload::Lane;
use crate::http::error::Failure;
use crate::guest::instance::{InstanceState, Stores};
use crate::http::spin_headers::SpinHeader;

mod generated {
    wasmtime::component::bindgen!({
        path: "../wit/spinfer-experiment",
        world: "router",
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: true },
        require_store_data_send: true,
    });
}

use generated::exports::spinfer::experiment::assignment as wit;
pub use wit::{Assigned, Refusal, Shadow};

/// What instances are made from.
pub type Pre = generated::RouterPre<InstanceState>;

/// What a component with an assignment door exports.
pub const EXPORT: &str = "spinfer:experiment/assignment@0.1.0";

/// What a router says of a request, with its head given back.
pub type Decided = (Parts, Result<Assigned, Refusal>);

/// A router's instances behind the assignment door.
#[derive(Debug)]
pub struct Door {
    instances: Arc<Instances<Assigner>>,
    /// Known once there was an instance.
    needs_body: OnceLock<bool>,
}

/// An instance's assignments, and what they read of a request.
struct Assigner {
    router: generated::Router,
    /// By their index.
    needed_headers: Vec<(u32, HeaderName)>,
    needs_body: bool,
}

impl Guest for Assigner {
    type Pre = Pre;

    async fn create(pre: &Pre, store: &mut Store<InstanceState>) -> wasmtime::Result<Self> {
        let router = pre.instantiate_async(&mut *store).await?;
        let assignment = router.spinfer_experiment_assignment();
        let needs_body = assignment.call_needs_body(&mut *store).await?;
        let mut needed_headers = Vec::new();
        for (index, name) in (0_u32..).zip(assignment.call_needed_headers(&mut *store).await?) {
            let name = HeaderName::from_str(&name)?;
            if SpinHeader::named(&name).is_some() {
                bail!("`{name}` is a header of the host, which decides no assignment");
            }
            needed_headers.push((index, name));
        }
        Ok(Self { router, needed_headers, needs_body })
    }
}

impl Door {
    #[must_use]
    pub fn new(pre: &Pre, stores: &Arc<Stores>, background: Lane, doors: &Arc<Doors>) -> Arc<Self> {
        let instances = Instances::new(pre, stores, background, doors);
        Arc::new(Self { instances, needs_body: OnceLock::new() })
    }

    /// Whether bodies decide. Makes an instance to ask, if there was none yet.
    pub async fn needs_body(&self, deadline: Instant) -> Result<bool, Failure> {
        if let Some(needs_body) = self.needs_body.get() {
            return Ok(*needs_body);
        }
        let look = |instance: Box<Instance<Assigner>>| async move {
            let needs_body = instance.guest.needs_body;
            (instance, Ok(needs_body))
        };
        let needs_body = self.instances.call(deadline, 0, look).await?;
        Ok(*self.needs_body.get_or_init(|| needs_body))
    }

    /// Asks who serves the request, which has come through `hops` components, this one included.
    pub async fn assign(
        &self,
        head: Parts,
        body: Bytes,
        deadline: Instant,
        hops: usize,
    ) -> Result<Decided, Failure> {
        self.instances.call(deadline, hops, |instance| call(instance, head, body)).await
    }
}

impl GivesWay for Door {
    fn drop_idle(&self, since: Instant) -> Leaving {
        self.instances.drop_idle(since)
    }
}

/// One call. Owns all it needs, as it may move to another thread.
async fn call(
    mut instance: Box<Instance<Assigner>>,
    head: Parts,
    body: Bytes,
) -> (Box<Instance<Assigner>>, wasmtime::Result<Decided>) {
    let needed = instance.guest.needed_headers.iter();
    let values = needed.flat_map(|(index, name)| {
        let values = head.headers.get_all(name).into_iter();
        values.map(|value| wit::RequestHeader { index: *index, value: value.as_bytes() })
    });
    let headers: Vec<_> = values.collect();
    let request = wit::Request {
        path_with_query: head.uri.path_and_query().map_or("/", |path| path.as_str()),
        headers: &headers,
        body: &body,
    };
    let assignment = instance.guest.router.spinfer_experiment_assignment();
    let decided = assignment.call_assign(&mut instance.store, request).await;
    (instance, decided.map(|decided| (head, decided)))
}
