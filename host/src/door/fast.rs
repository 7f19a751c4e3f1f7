//! The fast door: the whole request in, the whole response out, one typed call, no streams.

use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use tokio::sync::Semaphore;
use tokio::time::timeout_at;
use tracing::{info, warn};
use wasmtime::Store;
use wasmtime::component::InstancePre;

use super::{busy, invalid_answer, late};
use crate::body::Body;
use crate::error::Failure;
use crate::instance::{InstanceState, Stores, is_full, is_late};

mod generated {
    wasmtime::component::bindgen!({
        path: "../wit/spinfer-serve",
        world: "buffered-service",
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: true },
        require_store_data_send: true,
    });
}

use generated::exports::spinfer::serve::buffered_handler as wit;
use generated::{BufferedService, BufferedServicePre};

/// What a component with a fast door exports.
pub const EXPORT: &str = "spinfer:serve/buffered-handler@0.1.0";

/// Headers that belong to a connection or that the host derives: a guest's are dropped.
const HOST_HEADERS: [HeaderName; 7] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// A component's instances behind the fast door, each serving one request at a time.
pub struct Door {
    pre: BufferedServicePre<InstanceState>,
    stores: Arc<Stores>,
    /// As many as may serve at the same time.
    permits: Semaphore,
    /// The last used on top, so that the rest grow old and are dropped.
    idle: Mutex<Vec<Instance>>,
}

struct Instance {
    store: Store<InstanceState>,
    service: BufferedService,
    needed_headers: Vec<HeaderName>,
    idle_since: Instant,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("fast::Door").field("stores", &self.stores).finish_non_exhaustive()
    }
}

impl Door {
    /// Fails if the component does not export the fast door, or not as it is.
    pub fn new(pre: &InstancePre<InstanceState>, stores: &Arc<Stores>) -> wasmtime::Result<Self> {
        Ok(Self {
            pre: BufferedServicePre::new(pre.clone())?,
            permits: Semaphore::new(stores.spec().limits.instances),
            idle: Mutex::default(),
            stores: Arc::clone(stores),
        })
    }

    /// Waits for an instance, calls it, and keeps it for the next request unless it failed.
    pub async fn invoke(
        &self,
        head: &Parts,
        body: &[u8],
        deadline: Instant,
    ) -> Result<Response<Body>, Failure> {
        let permit = timeout_at(deadline.into(), self.permits.acquire()).await;
        let _permit = permit.ok().and_then(Result::ok).ok_or_else(|| busy(self.stores.spec()))?;
        let mut instance = match self.take_idle() {
            Some(instance) => instance,
            None => self.instantiate(deadline).await?,
        };
        instance.store.data_mut().deadline = deadline;
        instance.store.set_epoch_deadline(1);
        let headers = needed_headers(&head.headers, &instance.needed_headers);
        let request = wit::Request {
            method: method(&head.method),
            path_with_query: head.uri.path_and_query().map_or("/", |path| path.as_str()),
            headers: &headers,
            body,
        };
        let handler = instance.service.spinfer_serve_buffered_handler();
        let call = handler.call_handle(&mut instance.store, request);
        let answer = match timeout_at(deadline.into(), call).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if is_late(&error) => return Err(late(self.stores.spec())),
            Ok(Err(error)) => return Err(self.trapped(&error)),
            Err(_) => return Err(late(self.stores.spec())),
        };
        self.keep(instance);
        self.response(answer)
    }

    async fn instantiate(&self, deadline: Instant) -> Result<Instance, Failure> {
        let instantiating = async {
            let mut store = self.stores.create(deadline)?;
            let service = self.pre.instantiate_async(&mut store).await?;
            let handler = service.spinfer_serve_buffered_handler();
            let names = handler.call_needed_headers(&mut store).await?;
            let needed_headers =
                names.iter().map(|name| HeaderName::from_str(name)).collect::<Result<_, _>>()?;
            wasmtime::error::Ok(Instance {
                store,
                service,
                needed_headers,
                idle_since: Instant::now(),
            })
        };
        match timeout_at(deadline.into(), instantiating).await {
            Ok(Ok(instance)) => Ok(instance),
            Ok(Err(error)) if is_late(&error) => Err(late(self.stores.spec())),
            Err(_) => Err(late(self.stores.spec())),
            Ok(Err(error)) if is_full(&error) => Err(busy(self.stores.spec())),
            Ok(Err(error)) => {
                let component = self.stores.spec().id.clone();
                warn!(component, error = format!("{error:#}"), "cannot instantiate");
                Err(Failure::Instantiation { component })
            }
        }
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

    fn take_idle(&self) -> Option<Instance> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn keep(&self, mut instance: Instance) {
        instance.idle_since = Instant::now();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(instance);
    }

    /// Drops instances that had nothing to do for the component's idle time.
    pub fn drop_idle(&self, now: Instant) {
        let limit = self.stores.spec().limits.idle;
        let dropped: Vec<Instance> = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let old =
                idle.partition_point(|i| now.saturating_duration_since(i.idle_since) >= limit);
            idle.drain(..old).collect()
        };
        if !dropped.is_empty() {
            info!(
                component = self.stores.spec().id,
                instances = dropped.len(),
                "idle instances dropped"
            );
        }
    }

    fn trapped(&self, error: &wasmtime::Error) -> Failure {
        let component = self.stores.spec().id.clone();
        warn!(component, error = format!("{error:#}"), "trapped");
        Failure::Trap { component }
    }
}

fn needed_headers<'a>(
    headers: &'a HeaderMap,
    needed: &[HeaderName],
) -> Vec<wit::RequestHeader<'a>> {
    (0_u32..)
        .zip(needed)
        .flat_map(|(index, name)| headers.get_all(name).into_iter().map(move |v| (index, v)))
        .map(|(index, value)| wit::RequestHeader { index, value: value.as_bytes() })
        .collect()
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
