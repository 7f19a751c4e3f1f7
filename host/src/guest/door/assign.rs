//! The assignment door: a router returns the component to which it assigns a request, and the host
//! forwards the request itself. One typed call; the body is copied only if the router needs it.

use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use http::header::HeaderName;
use http::request::Parts;
use wasmtime::{Store, bail};

use super::instances::{Guest, IdleInstance, Instances};
use super::{Evictable, Evicted, InstancePool};
use crate::guest::instance::{InstanceState, StoreFactory};
use crate::guest::offload::GuestOffload;
use crate::http::error::Failure;
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

/// The component, ready to be instantiated behind this door.
pub type AssignPre = generated::RouterPre<InstanceState>;

/// The interface that a component with an assignment door exports.
pub const EXPORT: &str = "spinfer:experiment/assignment@0.1.0";

/// The head of the request, returned to the caller, and the router's decision.
pub type Decided = (Parts, Result<Assigned, Refusal>);

/// A router's instances behind the assignment door.
#[derive(Debug)]
pub struct AssignDoor {
    instances: Arc<Instances<Assigner>>,
    /// Set by the first instance.
    needs_body: OnceLock<bool>,
}

/// A router instance, and the parts of a request that it reads.
struct Assigner {
    router: generated::Router,
    /// With their indices in the list that the router returned.
    needed_headers: Vec<(u32, HeaderName)>,
    needs_body: bool,
}

impl Guest for Assigner {
    type AssignPre = AssignPre;

    async fn create(pre: &AssignPre, store: &mut Store<InstanceState>) -> wasmtime::Result<Self> {
        let router = pre.instantiate_async(&mut *store).await?;
        let assignment = router.spinfer_experiment_assignment();
        let needs_body = assignment.call_needs_body(&mut *store).await?;
        let mut needed_headers = Vec::new();
        for (index, name) in (0_u32..).zip(assignment.call_needed_headers(&mut *store).await?) {
            let name = HeaderName::from_str(&name)?;
            if SpinHeader::named(&name).is_some() {
                bail!(
                    "needed-headers: `{name}` is a header of the host, which routers do not receive"
                );
            }
            needed_headers.push((index, name));
        }
        Ok(Self { router, needed_headers, needs_body })
    }
}

impl AssignDoor {
    #[must_use]
    pub fn new(
        pre: &AssignPre,
        stores: &Arc<StoreFactory>,
        offload: GuestOffload,
        pool: &Arc<InstancePool>,
    ) -> Arc<Self> {
        let instances = Instances::new(pre, stores, offload, pool);
        Arc::new(Self { instances, needs_body: OnceLock::new() })
    }

    /// Whether the router needs request bodies. Instantiates it to find out, if it never was.
    pub async fn needs_body(&self, deadline: Instant) -> Result<bool, Failure> {
        if let Some(needs_body) = self.needs_body.get() {
            return Ok(*needs_body);
        }
        let read = |instance: Box<IdleInstance<Assigner>>| async move {
            let needs_body = instance.guest.needs_body;
            (instance, Ok(needs_body))
        };
        let needs_body = self.instances.call(deadline, 0, read).await?;
        Ok(*self.needs_body.get_or_init(|| needs_body))
    }

    /// Assigns a request that has passed through `hops` components, this one included.
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

impl Evictable for AssignDoor {
    fn drop_idle(&self, since: Instant) -> Evicted {
        self.instances.drop_idle(since)
    }
}

/// Calls the guest. Owns its arguments, as the call may move to another thread.
async fn call(
    mut instance: Box<IdleInstance<Assigner>>,
    head: Parts,
    body: Bytes,
) -> (Box<IdleInstance<Assigner>>, wasmtime::Result<Decided>) {
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
