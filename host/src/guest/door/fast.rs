//! The fast door: the whole request in, the whole response out, one typed call, no streams.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use wasmtime::Store;

use super::instances::{Guest, Instance, Instances};
use super::{Doors, GivesWay, Leaving, invalid_answer};
use crate::http::reserved::HOST_HEADERS;
use crate::guest::offload::Lane;
use crate::http::body::Body;
use crate::http::error::Failure;
use crate::guest::instance::{InstanceState, Stores};
use crate::http::spin_headers::{Origin, SpinHeader};

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

/// What instances are made from.
pub type Pre = generated::BufferedServicePre<InstanceState>;

/// What a component with a fast door exports.
pub const EXPORT: &str = "spinfer:serve/buffered-handler@0.1.0";

/// A component's instances behind the fast door.
#[derive(Debug)]
pub struct Door {
    stores: Arc<Stores>,
    instances: Arc<Instances<Handler>>,
}

/// An instance's handler, and what it reads of a request.
struct Handler {
    service: BufferedService,
    /// What it asks for of a client's headers, by their index.
    needed_headers: Vec<(u32, HeaderName)>,
    /// What it asks for that the host says.
    spin_headers: Vec<(u32, SpinHeader)>,
}

impl Guest for Handler {
    type Pre = Pre;

    async fn create(pre: &Pre, store: &mut Store<InstanceState>) -> wasmtime::Result<Self> {
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

impl Door {
    #[must_use]
    pub fn new(pre: &Pre, stores: &Arc<Stores>, background: Lane, doors: &Arc<Doors>) -> Arc<Self> {
        let instances = Instances::new(pre, stores, background, doors);
        Arc::new(Self { stores: Arc::clone(stores), instances })
    }

    /// Calls an instance, and keeps it for the next request unless it failed or has served for long
    /// enough.
    pub async fn invoke(
        &self,
        head: Parts,
        body: Bytes,
        deadline: Instant,
        origin: &Origin<'_>,
    ) -> Result<Response<Body>, Failure> {
        let predictions = origin.predictions.cloned();
        let call = |mut instance: Box<Instance<Handler>>| {
            let told = instance.guest.told(origin, &head);
            if let Some(predictions) = &predictions {
                instance.store.data_mut().predictions.begin(Arc::clone(predictions));
            }
            async move {
                let (mut instance, answer) = call(instance, head, body, told).await;
                if let Some(predictions) = predictions {
                    instance.store.data_mut().predictions.end(predictions.id());
                }
                (instance, answer)
            }
        };
        let answer = self.instances.call(deadline, origin.client.hops + 1, call).await?;
        self.response(answer)
    }

    fn response(&self, answer: wit::Response) -> Result<Response<Body>, Failure> {
        let invalid = |problem| invalid_answer(self.stores.spec(), problem);
        let mut headers = HeaderMap::with_capacity(answer.headers.len());
        for wit::ResponseHeader { name, value } in answer.headers {
            let name = HeaderName::from_str(&name)
                .map_err(|_| invalid(format!("`{name}` is not a header name")))?;
            let value = HeaderValue::try_from(value)
                .map_err(|_| invalid(format!("the value of header `{name}` has control bytes")))?;
            if !HOST_HEADERS.contains(&name) {
                headers.append(name, value);
            }
        }
        let status = StatusCode::from_u16(answer.status)
            .map_err(|_| invalid(format!("{} is not a status", answer.status)))?;
        let mut response = Response::new(Body::whole(answer.body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

impl GivesWay for Door {
    fn drop_idle(&self, since: Instant) -> Leaving {
        self.instances.drop_idle(since)
    }
}

impl Handler {
    /// What the host says that it asks for. Most ask for nothing, and nothing is made.
    fn told(&self, origin: &Origin<'_>, head: &Parts) -> Vec<(u32, HeaderValue)> {
        let told = self.spin_headers.iter();
        told.filter_map(|(index, header)| Some((*index, origin.value(header, head)?))).collect()
    }
}

/// One call. Owns all it needs, as it may move to another thread.
async fn call(
    mut instance: Box<Instance<Handler>>,
    head: Parts,
    body: Bytes,
    told: Vec<(u32, HeaderValue)>,
) -> (Box<Instance<Handler>>, wasmtime::Result<wit::Response>) {
    let headers = needed_headers(&head.headers, &instance.guest.needed_headers, &told);
    let request = wit::Request {
        method: method(&head.method),
        path_with_query: head.uri.path_and_query().map_or("/", |path| path.as_str()),
        headers: &headers,
        body: &body,
    };
    let handler = instance.guest.service.spinfer_serve_buffered_handler();
    let answer = handler.call_handle(&mut instance.store, request).await;
    (instance, answer)
}

fn needed_headers<'a>(
    headers: &'a HeaderMap,
    needed: &[(u32, HeaderName)],
    told: &'a [(u32, HeaderValue)],
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
    if !told.is_empty() {
        all.extend(told.iter().map(|(index, value)| header((*index, value))));
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
