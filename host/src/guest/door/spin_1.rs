//! The door of Spin 1: one typed call of `fermyon:spin/inbound-http` with the buffered request, which
//! returns the whole response. TinyGo's SDK and spin-sdk 1 for Rust export it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{ALLOW, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use wasmtime::{Engine, Store};

use super::instances::{Guest, IdleInstance, Instances};
use super::{Evictable, Evicted, InstancePool, invalid_response, response_of};
use crate::config::instance_reuse::ServedInterface;
use crate::guest::instance::{InstanceState, StoreFactory};
use crate::guest::offload::GuestOffload;
use crate::http::body::Body;
use crate::http::error::Failure;
use crate::http::spin_headers::RequestOrigin;

mod generated {
    wasmtime::component::bindgen!({
        path: "../wit/fermyon-spin-1",
        world: "http-trigger",
        exports: { default: async },
        require_store_data_send: true,
    });
}

use generated::HttpTrigger;
use generated::exports::fermyon::spin::inbound_http::{Request, Response as GuestResponse};
use generated::fermyon::spin::http_types::Method as GuestMethod;

/// The component, ready to be instantiated behind this door.
pub type Spin1Pre = generated::HttpTriggerPre<InstanceState>;

/// The interface that a component with this door exports.
pub const EXPORT: &str = "fermyon:spin/inbound-http";

/// The methods of a request that the interface can represent, for a response with the status 405.
const ALLOWED: &str = "GET, POST, PUT, DELETE, PATCH, HEAD, OPTIONS";

/// A component's instances behind the door of Spin 1.
#[derive(Debug)]
pub struct Spin1Door {
    stores: Arc<StoreFactory>,
    instances: Arc<Instances<HttpTrigger>>,
}

impl Guest for HttpTrigger {
    type AssignPre = Spin1Pre;

    const INTERFACE: ServedInterface = ServedInterface::Spin1;

    fn engine(pre: &Spin1Pre) -> &Engine {
        pre.engine()
    }

    async fn create(pre: &Spin1Pre, store: &mut Store<InstanceState>) -> wasmtime::Result<Self> {
        pre.instantiate_async(store).await
    }
}

impl Spin1Door {
    #[must_use]
    pub fn new(
        pre: &Spin1Pre,
        stores: &Arc<StoreFactory>,
        offload: GuestOffload,
        pool: &Arc<InstancePool>,
    ) -> Arc<Self> {
        let instances = Instances::new(pre, stores, offload, pool);
        Arc::new(Self { stores: Arc::clone(stores), instances })
    }

    /// Calls an instance, which by default serves no other request, as in Spin.
    pub async fn invoke(
        &self,
        mut head: Parts,
        body: Bytes,
        deadline: Instant,
        origin: &RequestOrigin<'_>,
    ) -> Result<Response<Body>, Failure> {
        let Some(method) = method(&head.method) else { return Ok(method_not_allowed()) };
        origin.put_into(&mut head);
        let is_head = head.method == Method::HEAD;
        let request = request(method, &head, &body);
        let predictions = origin.predictions.cloned();
        let call = |mut instance: Box<IdleInstance<HttpTrigger>>| async move {
            if let Some(predictions) = &predictions {
                instance.store.data_mut().predictions.begin(Arc::clone(predictions));
            }
            let handler = instance.guest.fermyon_spin_inbound_http();
            let response = handler.call_handle_request(&mut instance.store, &request).await;
            let response = response.map(|response| convert(response, is_head));
            if response.as_ref().is_ok_and(super::is_failed_response) {
                instance.fail();
            }
            if let Some(predictions) = predictions {
                instance.store.data_mut().predictions.end(predictions.id());
            }
            (instance, response)
        };
        let response = self.instances.call(deadline, origin.client.hops + 1, call).await?;
        response.map_err(|problem| invalid_response(self.stores.spec(), problem))
    }
}

impl Evictable for Spin1Door {
    fn drop_idle(&self, since: Instant) -> Evicted {
        self.instances.drop_idle(since)
    }
}

fn method_not_allowed() -> Response<Body> {
    let mut response = Response::new(Body::whole(Bytes::new()));
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(ALLOWED));
    response
}

fn method(method: &Method) -> Option<GuestMethod> {
    Some(match *method {
        Method::GET => GuestMethod::Get,
        Method::POST => GuestMethod::Post,
        Method::PUT => GuestMethod::Put,
        Method::DELETE => GuestMethod::Delete,
        Method::PATCH => GuestMethod::Patch,
        Method::HEAD => GuestMethod::Head,
        Method::OPTIONS => GuestMethod::Options,
        _ => return None,
    })
}

fn request(method: GuestMethod, head: &Parts, body: &Bytes) -> Request {
    let headers = head.headers.iter().filter_map(|(name, value)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    });
    Request {
        method,
        uri: head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        headers: headers.collect(),
        params: Vec::new(),
        body: Some(body.to_vec()),
    }
}

/// The response of a guest; an error is what makes it invalid.
fn convert(response: GuestResponse, is_head: bool) -> Result<Response<Body>, String> {
    let headers = response.headers.unwrap_or_default();
    response_of(response.status, headers, response.body.unwrap_or_default(), is_head)
}
