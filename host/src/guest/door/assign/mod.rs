//! The assignment door: a router returns the component to which it assigns a request, and the host
//! forwards the request itself. One typed call; the body is copied only if the router needs it.

mod versions;

use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use http::header::HeaderName;
use http::request::Parts;
use wasmtime::{Engine, Store, bail};

use super::instances::{Guest, IdleInstance, Instances};
use super::{Evictable, Evicted, InstancePool};
use crate::guest::instance::{InstanceState, StoreFactory};
use crate::guest::offload::GuestOffload;
use crate::http::error::Failure;
use crate::http::spin_headers::{RequestSource, SpinHeader};

pub use versions::{AssignPre, Assigned, Destination, Exclusion, Refusal};
use versions::{Request, RequestHeader, RouterExports};

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
    router: RouterExports,
    /// With their indices in the list that the router returned.
    needed_headers: Vec<(u32, HeaderName)>,
    needs_body: bool,
}

impl Guest for Assigner {
    type AssignPre = AssignPre;

    fn engine(pre: &AssignPre) -> &Engine {
        pre.engine()
    }

    async fn create(pre: &AssignPre, store: &mut Store<InstanceState>) -> wasmtime::Result<Self> {
        let router = pre.instantiate(store).await?;
        let needs_body = router.needs_body(store).await?;
        let mut needed_headers = Vec::new();
        for (index, name) in (0_u32..).zip(router.needed_headers(store).await?) {
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

    /// Assigns a request of `client`, whose hops include this component.
    pub async fn assign(
        &self,
        head: Parts,
        body: Bytes,
        deadline: Instant,
        client: RequestSource,
    ) -> Result<Decided, Failure> {
        let secure = client.scheme == "https";
        let call = |instance| call(instance, head, body, secure);
        self.instances.call(deadline, client.hops, call).await
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
    secure: bool,
) -> (Box<IdleInstance<Assigner>>, wasmtime::Result<Decided>) {
    let needed = instance.guest.needed_headers.iter();
    let values = needed.flat_map(|(index, name)| {
        let values = head.headers.get_all(name).into_iter();
        values.map(|value| RequestHeader { index: *index, value: value.as_bytes() })
    });
    let headers: Vec<_> = values.collect();
    let request = Request {
        path_with_query: head.uri.path_and_query().map_or("/", |path| path.as_str()),
        headers: &headers,
        body: &body,
        secure,
    };
    let IdleInstance { guest, store, .. } = &mut *instance;
    let decided = guest.router.assign(store, request).await;
    (instance, decided.map(|decided| (head, decided)))
}
