//! A collector of CloudEvents, which can fail in every way that a server can.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// What the collector does with events.
#[derive(Clone, Copy, Debug)]
pub(super) enum Behaviour {
    Accept,
    /// Takes this long for each event.
    AcceptIn(Duration),
    /// Responds with this status, and keeps nothing.
    Status(u16),
    /// Does not respond.
    Hang,
    /// Closes the connection instead of responding.
    Break,
    /// Keeps the event, and closes the connection instead of responding.
    KeepAndBreak,
    /// Refuses the event if its body contains this text, with 400.
    Refuse(&'static str),
}

/// An event as received.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl Event {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A running collector.
pub(super) struct Collector {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _runtime: Runtime,
}

struct State {
    behaviour: Behaviour,
    events: Vec<Event>,
    /// Number of requests, whatever became of them.
    requests: usize,
}

impl Collector {
    pub(super) fn start(behaviour: Behaviour) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let state = Arc::new(Mutex::new(State { behaviour, events: Vec::new(), requests: 0 }));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(serve(listener, Arc::clone(&state)));
        Self { address, state, _runtime: runtime }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }

    pub(super) fn behave(&self, behaviour: Behaviour) {
        self.lock().behaviour = behaviour;
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    pub(super) fn requests(&self) -> usize {
        self.lock().requests
    }

    /// Ids of the request events, in the order of their arrival.
    pub(super) fn ids(&self) -> Vec<String> {
        let state = self.lock();
        let requests = state
            .events
            .iter()
            .filter(|event| event.header("ce-type") == "org.kubeflow.serving.inference.request");
        requests.map(|event| event.header("ce-id").to_owned()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(|request| receive(request, Arc::clone(&state)));
            // Fails if the collector is to break the connection.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// The connection is closed without a response.
#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("connection broken on purpose")
    }
}

impl std::error::Error for Broken {}

async fn receive(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, Broken> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
    let behaviour = {
        let mut state = state.lock().unwrap();
        state.requests += 1;
        state.behaviour
    };
    let keep = || {
        let body = serde_json::from_slice(&body).unwrap();
        state.lock().unwrap().events.push(Event { headers: head.headers.clone(), body });
    };
    let status = match behaviour {
        Behaviour::Hang => std::future::pending().await,
        Behaviour::Break => return Err(Broken),
        Behaviour::KeepAndBreak => {
            keep();
            return Err(Broken);
        }
        Behaviour::Status(status) => status,
        Behaviour::Refuse(part) if String::from_utf8_lossy(&body).contains(part) => 400,
        Behaviour::AcceptIn(time) => {
            tokio::time::sleep(time).await;
            keep();
            202
        }
        Behaviour::Accept | Behaviour::Refuse(_) => {
            keep();
            202
        }
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    Ok(response)
}
