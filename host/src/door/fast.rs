//! The fast door: the whole request in, the whole response out, one typed call, no streams.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use tokio::time::timeout_at;
use tracing::{debug, warn};
use wasmtime::Store;

use super::{Doors, GivesWay, HOST_HEADERS, Leaving, invalid_answer, late};
use crate::background::Lane;
use crate::body::Body;
use crate::error::Failure;
use crate::instance::{InstanceState, Stores, is_full, is_late};
use crate::metrics::Ended;
use crate::service::Counted;
use crate::spin_headers::{Origin, SpinHeader};

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

/// A component's instances behind the fast door, each serving one request at a time.
pub struct Door {
    doors: Arc<Doors>,
    pre: Pre,
    stores: Arc<Stores>,
    /// Where calls that take long go on.
    background: Lane,
    /// The last used on top, so that the rest grow old and are dropped.
    idle: Mutex<Idle>,
    /// Calls under way.
    calls: AtomicUsize,
    /// Spare instances in the making.
    making: AtomicUsize,
}

/// Boxed, as an instance moves from future to future with each request.
type Idle = Vec<Box<Instance>>;

struct Instance {
    store: Store<InstanceState>,
    service: BufferedService,
    /// What it asks for of a client's headers, by their index.
    needed_headers: Vec<(u32, HeaderName)>,
    /// What it asks for that the host says.
    spin_headers: Vec<(u32, SpinHeader)>,
    served: usize,
    /// Requests it may serve.
    most: usize,
    made: Instant,
    idle_since: Instant,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("fast::Door").field("stores", &self.stores).finish_non_exhaustive()
    }
}

impl Door {
    #[must_use]
    pub fn new(pre: &Pre, stores: &Arc<Stores>, background: Lane, doors: &Arc<Doors>) -> Arc<Self> {
        let door = Arc::new(Self {
            doors: Arc::clone(doors),
            pre: pre.clone(),
            stores: Arc::clone(stores),
            background,
            idle: Mutex::default(),
            calls: AtomicUsize::new(0),
            making: AtomicUsize::new(0),
        });
        doors.add(&door);
        door
    }

    /// Calls an instance, and keeps it for the next request unless it failed or has served for long
    /// enough.
    pub async fn invoke(
        self: &Arc<Self>,
        head: Parts,
        body: Bytes,
        deadline: Instant,
        origin: &Origin<'_>,
    ) -> Result<Response<Body>, Failure> {
        let _call = Counted::new(&self.calls);
        let mut instance = match self.take_idle() {
            Some(instance) => instance,
            None => self.instantiate(deadline).await?,
        };
        let state = instance.store.data_mut();
        state.deadline = deadline;
        state.outbound.hops = origin.client.hops + 1;
        if let Some(predictions) = origin.predictions {
            state.predictions.begin(Arc::clone(predictions));
        }
        instance.store.set_epoch_deadline(1);
        let told = instance.told(origin, &head);
        let call = self.background.run(call(instance, head, body, told));
        let (mut instance, answer) = match timeout_at(deadline.into(), call).await {
            Ok(Ok((instance, Ok(answer)))) => (instance, answer),
            Ok(Ok((_, Err(error)))) if is_late(&error) => return Err(late(self.stores.spec())),
            Ok(Ok((_, Err(error)))) => return Err(self.failed(format_args!("{error:#}"))),
            Ok(Err(lost)) => return Err(self.failed(format_args!("{lost}"))),
            Err(_) => return Err(late(self.stores.spec())),
        };
        if let Some(predictions) = origin.predictions {
            instance.store.data_mut().predictions.end(predictions.id());
        }
        self.keep(instance);
        self.response(answer)
    }

    async fn instantiate(self: &Arc<Self>, deadline: Instant) -> Result<Box<Instance>, Failure> {
        let door = Arc::clone(self);
        // What a guest does at its start may take as long as a call.
        let making =
            self.background.run(async move { door.doors.with_room(|| door.make(deadline)).await });
        match timeout_at(deadline.into(), making).await {
            Ok(Ok(Ok(instance))) => Ok(instance),
            Ok(Ok(Err(error))) if is_late(&error) => Err(late(self.stores.spec())),
            Err(_) => Err(late(self.stores.spec())),
            Ok(Ok(Err(error))) if is_full(&error) => Err(Failure::NoRoom),
            Ok(Err(lost)) => Err(self.failed(format_args!("{lost}"))),
            Ok(Ok(Err(error))) => {
                let component = self.stores.spec().id.clone();
                warn!(component, error = format!("{error:#}"), "cannot instantiate");
                Err(Failure::Instantiation { component })
            }
        }
    }

    async fn make(&self, deadline: Instant) -> wasmtime::Result<Box<Instance>> {
        let start = Instant::now();
        let mut store = self.stores.create(deadline)?;
        let service = self.pre.instantiate_async(&mut store).await?;
        let handler = service.spinfer_serve_buffered_handler();
        let names = handler.call_needed_headers(&mut store).await?;
        let mut needed_headers = Vec::new();
        let mut spin_headers = Vec::new();
        for (index, name) in (0_u32..).zip(&names) {
            let name = HeaderName::from_str(name)?;
            match SpinHeader::named(&name) {
                Some(header) => spin_headers.push((index, header)),
                None => needed_headers.push((index, name)),
            }
        }
        let made = Instant::now();
        store.data_mut().begins(made - start);
        Ok(Box::new(Instance {
            store,
            service,
            needed_headers,
            spin_headers,
            served: 0,
            most: self.stores.spec().reuse.requests.draw(),
            made,
            idle_since: made,
        }))
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

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An instance, and a spare one for the next if this was the last and others are calling.
    fn take_idle(self: &Arc<Self>) -> Option<Box<Instance>> {
        let age = self.stores.spec().reuse.age;
        let mut old = Vec::new();
        let mut idle = self.idle();
        let instance = loop {
            match idle.pop() {
                // A spare one may serve once, however long it waited.
                Some(mut instance) if instance.served > 0 && instance.made.elapsed() >= age => {
                    instance.store.data_mut().ends(Ended::Retired);
                    old.push(instance);
                }
                instance => break instance,
            }
        };
        let left = idle.len();
        drop(idle);
        drop(old);
        if self.calls.load(Ordering::Relaxed) > 1 {
            self.make_spare(left);
        }
        instance
    }

    fn keep(self: &Arc<Self>, mut instance: Box<Instance>) {
        let now = Instant::now();
        let age = self.stores.spec().reuse.age;
        instance.served += 1;
        if instance.served < instance.most && now - instance.made < age {
            instance.idle_since = now;
            self.idle().push(instance);
        } else {
            instance.store.data_mut().ends(Ended::Retired);
            // Here and now: dropped in the background, they could come faster than they go.
            drop(instance);
            let left = self.idle().len();
            self.make_spare(left);
        }
    }

    /// Makes an instance in the background, if fewer than `reuse.spare` are idle or being made.
    fn make_spare(self: &Arc<Self>, idle: usize) {
        let spec = self.stores.spec();
        let being_made = Making::one_more(self);
        if idle + being_made.before >= spec.reuse.spare {
            return;
        }
        let door = Arc::clone(self);
        let deadline = Instant::now() + spec.limits.deadline;
        self.background.spawn(async move {
            match timeout_at(deadline.into(), door.make(deadline)).await {
                Ok(Ok(instance)) => door.idle().push(instance),
                // Whoever needs one will make it, and say what is wrong.
                Ok(Err(error)) => debug!(error = format!("{error:#}"), "no spare instance"),
                Err(_) => debug!("no spare instance in time"),
            }
            drop(being_made);
        });
    }

    fn failed(&self, error: fmt::Arguments<'_>) -> Failure {
        let component = self.stores.spec().id.clone();
        warn!(component, %error, "failed");
        Failure::Trap { component }
    }
}

impl GivesWay for Door {
    fn drop_idle(&self, since: Instant) -> Leaving {
        let mut idle = self.idle();
        let old = idle.partition_point(|instance| instance.idle_since <= since);
        let mut dropped: Vec<_> = idle.drain(..old).collect();
        drop(idle);
        dropped.iter_mut().for_each(|instance| instance.store.data_mut().ends(Ended::Idle));
        Leaving::gone(dropped.len())
    }
}

/// One more spare instance in the making, for as long as it lives.
struct Making {
    door: Arc<Door>,
    before: usize,
}

impl Making {
    fn one_more(door: &Arc<Door>) -> Self {
        let before = door.making.fetch_add(1, Ordering::Relaxed);
        Self { door: Arc::clone(door), before }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        self.door.making.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Instance {
    /// What the host says that it asks for. Most ask for nothing, and nothing is made.
    fn told(&self, origin: &Origin<'_>, head: &Parts) -> Vec<(u32, HeaderValue)> {
        let told = self.spin_headers.iter();
        told.filter_map(|(index, header)| Some((*index, origin.value(header, head)?))).collect()
    }
}

/// One call. Owns all it needs, as it may move to another thread.
async fn call(
    mut instance: Box<Instance>,
    head: Parts,
    body: Bytes,
    told: Vec<(u32, HeaderValue)>,
) -> (Box<Instance>, wasmtime::Result<wit::Response>) {
    let headers = needed_headers(&head.headers, &instance.needed_headers, &told);
    let request = wit::Request {
        method: method(&head.method),
        path_with_query: head.uri.path_and_query().map_or("/", |path| path.as_str()),
        headers: &headers,
        body: &body,
    };
    let handler = instance.service.spinfer_serve_buffered_handler();
    let answer = handler.call_handle(&mut instance.store, request).await;
    if answer.as_ref().is_err_and(|error| !is_late(error)) {
        instance.store.data_mut().ends(Ended::Failed);
    }
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
