//! The fast door: one typed call with the buffered request, which returns the whole response.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response};
use wasmtime::{Engine, Store};

use super::instances::{Guest, IdleInstance, Instances};
use super::{Evictable, Evicted, InstancePool, invalid_response, response_of};
use crate::guest::instance::{InstanceState, StoreFactory};
use crate::guest::offload::GuestOffload;
use crate::http::body::Body;
use crate::http::error::Failure;
use crate::http::spin_headers::{RequestOrigin, SpinHeader};

mod generated {
    wasmtime::component::bindgen!({
        path: "../wit/spinfer-serve",
        world: "buffered-service",
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: true },
        require_store_data_send: true,
    });
}

use generated::BufferedService;
use generated::exports::spinfer::serve::buffered_handler as wit;

/// The component, ready to be instantiated behind this door.
pub type FastPre = generated::BufferedServicePre<InstanceState>;

/// The interface that a component with a fast door exports.
pub const EXPORT: &str = "spinfer:serve/buffered-handler@0.1.0";

/// A component's instances behind the fast door.
#[derive(Debug)]
pub struct FastDoor {
    stores: Arc<StoreFactory>,
    instances: Arc<Instances<Handler>>,
}

/// An instance, and the headers that it reads.
struct Handler {
    service: BufferedService,
    /// The client's headers that it needs, with their indices in the list it returned.
    needed_headers: Vec<(u32, HeaderName)>,
    /// The host's headers that it needs.
    spin_headers: Vec<(u32, SpinHeader)>,
}

impl Guest for Handler {
    type AssignPre = FastPre;

    fn engine(pre: &FastPre) -> &Engine {
        pre.engine()
    }

    async fn create(pre: &FastPre, store: &mut Store<InstanceState>) -> wasmtime::Result<Self> {
        let service = pre.instantiate_async(&mut *store).await?;
        let handler = service.spinfer_serve_buffered_handler();
        let names = handler.call_needed_headers(&mut *store).await?;
        let mut needed_headers = Vec::new();
        let mut spin_headers = Vec::new();
        for (index, name) in (0_u32..).zip(&names) {
            let name = HeaderName::from_str(name)?;
            match SpinHeader::named(&name) {
                Some(header) => spin_headers.push((index, header)),
                None => needed_headers.push((index, name)),
            }
        }
        Ok(Self { service, needed_headers, spin_headers })
    }
}

impl FastDoor {
    #[must_use]
    pub fn new(
        pre: &FastPre,
        stores: &Arc<StoreFactory>,
        offload: GuestOffload,
        pool: &Arc<InstancePool>,
    ) -> Arc<Self> {
        let instances = Instances::new(pre, stores, offload, pool);
        Arc::new(Self { stores: Arc::clone(stores), instances })
    }

    /// Calls an instance, which is reused for the next request unless it failed or is retired.
    pub async fn invoke(
        &self,
        head: Parts,
        body: Bytes,
        deadline: Instant,
        origin: &RequestOrigin<'_>,
    ) -> Result<Response<Body>, Failure> {
        let predictions = origin.predictions.cloned();
        let is_head = head.method == Method::HEAD;
        let call = |mut instance: Box<IdleInstance<Handler>>| {
            let host_headers = instance.guest.host_headers(origin, &head);
            if let Some(predictions) = &predictions {
                instance.store.data_mut().predictions.begin(Arc::clone(predictions));
            }
            async move {
                let (mut instance, response) = call(instance, head, body, host_headers).await;
                let response = response.map(|response| convert(response, is_head));
                if response.as_ref().is_ok_and(super::is_failed_response) {
                    instance.fail();
                }
                if let Some(predictions) = predictions {
                    instance.store.data_mut().predictions.end(predictions.id());
                }
                (instance, response)
            }
        };
        let response = self.instances.call(deadline, origin.client.hops + 1, call).await?;
        response.map_err(|problem| invalid_response(self.stores.spec(), problem))
    }
}

/// The response of a guest; an error is what makes it invalid.
fn convert(response: wit::Response, is_head: bool) -> Result<Response<Body>, String> {
    let headers = response.headers.into_iter().map(|header| (header.name, header.value));
    response_of(response.status, headers, response.body, is_head)
}

impl Evictable for FastDoor {
    fn drop_idle(&self, since: Instant) -> Evicted {
        self.instances.drop_idle(since)
    }
}

impl Handler {
    /// Values of the host's headers that the guest needs. Most guests need none, and nothing is
    /// allocated.
    fn host_headers(&self, origin: &RequestOrigin<'_>, head: &Parts) -> Vec<(u32, HeaderValue)> {
        let needed = self.spin_headers.iter();
        needed.filter_map(|(index, header)| Some((*index, origin.value(header, head)?))).collect()
    }
}

/// Calls the guest. Owns its arguments, as the call may move to another thread.
async fn call(
    mut instance: Box<IdleInstance<Handler>>,
    head: Parts,
    body: Bytes,
    host_headers: Vec<(u32, HeaderValue)>,
) -> (Box<IdleInstance<Handler>>, wasmtime::Result<wit::Response>) {
    let headers = needed_headers(&head.headers, &instance.guest.needed_headers, &host_headers);
    let request = wit::Request {
        method: method(&head.method),
        path_with_query: head.uri.path_and_query().map_or("/", |path| path.as_str()),
        headers: &headers,
        body: &body,
    };
    let handler = instance.guest.service.spinfer_serve_buffered_handler();
    let response = handler.call_handle(&mut instance.store, request).await;
    (instance, response)
}

fn needed_headers<'a>(
    headers: &'a HeaderMap,
    needed: &[(u32, HeaderName)],
    host_headers: &'a [(u32, HeaderValue)],
) -> Vec<wit::RequestHeader<'a>> {
    let header = |(index, value): (u32, &'a HeaderValue)| wit::RequestHeader {
        index,
        value: value.as_bytes(),
    };
    let mut all: Vec<_> = needed
        .iter()
        .flat_map(|(index, name)| headers.get_all(name).into_iter().map(move |v| (*index, v)))
        .map(header)
        .collect();
    if !host_headers.is_empty() {
        all.extend(host_headers.iter().map(|(index, value)| header((*index, value))));
        all.sort_by_key(|header| header.index);
    }
    all
}

fn method(method: &Method) -> wit::Method<'_> {
    match *method {
        Method::GET => wit::Method::Get,
        Method::HEAD => wit::Method::Head,
        Method::POST => wit::Method::Post,
        Method::PUT => wit::Method::Put,
        Method::DELETE => wit::Method::Delete,
        Method::CONNECT => wit::Method::Connect,
        Method::OPTIONS => wit::Method::Options,
        Method::TRACE => wit::Method::Trace,
        Method::PATCH => wit::Method::Patch,
        _ => wit::Method::Other(method.as_str()),
    }
}
