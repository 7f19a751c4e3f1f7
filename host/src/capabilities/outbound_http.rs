//! Requests a guest sends, where its manifest allows it to: to other components of the application,
//! without leaving the process, and elsewhere over connections that are kept and shared.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::uri::{Scheme, Uri};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::rustls::{ClientConfig, Error as TlsError};
use tower_service::Service;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::config::app::ComponentSpec;
use crate::guest::offload::Aborting;
use crate::config::blocked_networks::BlockedNetworks;
use crate::http::body::Body;
use crate::http::reserved::INTERNAL;

/// What a guest does not say it waits for a connection, and then for an answer's head and each
/// next part of it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
/// Connections nobody uses are kept for so long, so many to one host.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_IDLE: usize = 32;
/// The host of a request to the application's own routes, beside one that names none.
const SELF: &str = "self.alt";

/// How the component or the route that serves a request is found.
#[derive(Debug)]
pub enum Via {
    /// By the path.
    Route,
    /// By the id of a component.
    Component(String),
}

/// Service chaining: requests of one component to another, which never leave the process.
pub trait Chain: Send + Sync {
    /// Serves a request that has passed through `hops` components.
    fn chain(
        self: Arc<Self>,
        via: Via,
        hops: usize,
        request: Request<WasiBody>,
    ) -> BoxFuture<'static, Response<Body>>;
}

/// What all guests send requests through.
pub struct Outside {
    client: Client<HttpsConnector<HttpConnector<Resolver>>, WasiBody>,
    blocked: BlockedNetworks,
    /// The application, set once it is assembled.
    application: OnceLock<Weak<dyn Chain>>,
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outside").finish_non_exhaustive()
    }
}

impl Outside {
    /// To everywhere but the networks that are `blocked`; certificates are checked as `tls` says.
    #[must_use]
    pub fn new(blocked: BlockedNetworks, tls: &ClientConfig) -> Self {
        let resolver = Resolver { resolver: GaiResolver::new(), blocked: blocked.clone() };
        let mut connector = HttpConnector::new_with_resolver(resolver);
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.clone())
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE)
            .build(connector);
        Self { client, blocked, application: OnceLock::new() }
    }

    /// The networks nobody connects to.
    #[must_use]
    pub fn blocked(&self) -> &BlockedNetworks {
        &self.blocked
    }

    /// Sets the application whose components and routes guests reach by name.
    pub fn connect(&self, application: Weak<dyn Chain>) {
        // Set once, when the host is assembled.
        let _ = self.application.set(application);
    }
}

/// Names become addresses that may be connected to, and no others.
#[derive(Clone, Debug)]
struct Resolver {
    resolver: GaiResolver,
    blocked: BlockedNetworks,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.resolver.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (addresses, blocked) = (self.resolver.call(name), self.blocked.clone());
        Box::pin(async move { Ok(blocked.filter(addresses.await?)?.into_iter()) })
    }
}

/// An instance's way out.
#[derive(Clone, Debug)]
pub struct Outbound {
    pub outside: Arc<Outside>,
    /// One for each request of the component to elsewhere.
    pub places: Arc<Semaphore>,
    pub spec: Arc<ComponentSpec>,
    /// Components the requests it serves have come through, itself included.
    pub hops: usize,
}

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    /// The component of this id.
    Component(String),
    /// A route of the application.
    Application,
    Elsewhere,
}

impl Outbound {
    /// Where a request to `uri` goes, if the component may send it.
    fn target(&self, uri: &Uri) -> Result<Target, Error> {
        let allowed = &self.spec.outbound_hosts;
        let scheme = uri.scheme_str().unwrap_or(Scheme::HTTP.as_str());
        let host = uri.host().unwrap_or(SELF).to_ascii_lowercase();
        let (target, allows) = if host == SELF {
            (Target::Application, allowed.allows_self(scheme))
        } else {
            let target = match host.strip_suffix(INTERNAL) {
                Some(id) => Target::Component(id.to_owned()),
                None => Target::Elsewhere,
            };
            (target, allowed.allows(scheme, &host, uri.port_u16()))
        };
        if allows { Ok(target) } else { Err(Error::HttpRequestDenied) }
    }

    /// An answer of the application this guest is part of.
    async fn chain(
        self,
        via: Via,
        request: Request<WasiBody>,
    ) -> Result<Response<WasiBody>, Error> {
        let application = self.outside.application.get().and_then(Weak::upgrade);
        let application = application.ok_or(Error::DestinationUnavailable)?;
        // In a task of its own: no other store may run within the event loop of this guest's.
        let response = tokio::spawn(application.chain(via, self.hops, request));
        let response = Aborting(response).await.map_err(|_| Error::DestinationUnavailable)?;
        Ok(response.map(BodyExt::boxed_unsync))
    }

    /// An answer of somebody else.
    async fn send(
        self,
        mut request: Request<WasiBody>,
        options: Option<RequestOptions>,
    ) -> Result<Response<WasiBody>, Error> {
        // What is an address already does not come to the resolver.
        if request.uri().host().is_some_and(|host| self.outside.blocked.blocks_host(host)) {
            return Err(Error::DestinationIpProhibited);
        }
        let options = options.unwrap_or_default();
        let connecting = options.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        let place = timeout(connecting, self.places.acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(Error::ConnectionLimitReached) };
        let mut connected = capture_connection(&mut request);
        let mut answer = pin!(self.outside.client.request(request));
        let connected = async { drop(connected.wait_for_connection_metadata().await) };
        let answer = tokio::select! {
            biased;
            answer = answer.as_mut() => answer,
            connected = timeout(connecting, connected) => {
                connected.map_err(|_| Error::ConnectionTimeout)?;
                let patience = options.first_byte_timeout.unwrap_or(ANSWER_TIMEOUT);
                timeout(patience, answer).await.map_err(|_| Error::HttpResponseTimeout)?
            }
        };
        let answer = answer.map_err(|error| cause(&error))?;
        // Until its body has come, it has its connection.
        let silence = options.between_bytes_timeout.unwrap_or(ANSWER_TIMEOUT);
        let answer = answer.map(|body| body.map_err(Error::from).boxed_unsync());
        Ok(answer.map(|body| Body::fetched(body, silence, place).boxed_unsync()))
    }
}

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(Response<WasiBody>, Io), Error>;

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _io: Io,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let (outbound, target) = (self.clone(), self.target(request.uri()));
        Box::new(async move {
            let answer = match target? {
                Target::Component(id) => outbound.chain(Via::Component(id), request).await,
                Target::Application => outbound.chain(Via::Route, request).await,
                Target::Elsewhere => outbound.send(request, options).await,
            };
            Ok((answer?, Box::new(std::future::ready(Ok(()))) as Io))
        })
    }
}

/// What a guest is told of a request that could not be sent, or was not answered.
fn cause(error: &ClientError) -> Error {
    let mut sources = std::iter::successors(error.source(), |&error| error.source());
    let mut io = sources.find_map(|source| source.downcast_ref::<io::Error>());
    // TLS packs one into another, and what was wrong with it into that.
    while let Some(inner) = io.and_then(io::Error::get_ref).and_then(|e| e.downcast_ref()) {
        io = Some(inner);
    }
    let tls = io.and_then(io::Error::get_ref).and_then(|e| e.downcast_ref::<TlsError>());
    match io.map(io::Error::kind) {
        _ if matches!(tls, Some(TlsError::InvalidCertificate(_))) => Error::TlsCertificateError,
        Some(io::ErrorKind::ConnectionRefused) => Error::ConnectionRefused,
        Some(io::ErrorKind::TimedOut) => Error::ConnectionTimeout,
        Some(io::ErrorKind::PermissionDenied) => Error::DestinationIpProhibited,
        Some(io::ErrorKind::InvalidData) if error.is_connect() => Error::TlsProtocolError,
        _ if error.is_connect() => Error::DestinationUnavailable,
        _ => Error::ConnectionTerminated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::outbound_hosts::OutboundHost;

    fn target(allowed: &[&str], uri: &str) -> Option<Target> {
        let mut spec = ComponentSpec::default();
        for host in allowed {
            spec.outbound_hosts.add(OutboundHost::parse(host).unwrap());
        }
        let tls = crate::http::client_tls::client().unwrap();
        let outside = Arc::new(Outside::new(BlockedNetworks::default(), &tls));
        let places = Arc::new(Semaphore::new(1));
        let outbound = Outbound { outside, places, spec: Arc::new(spec), hops: 1 };
        outbound.target(&uri.parse().unwrap()).ok()
    }

    #[test]
    fn a_request_goes_where_its_host_says_if_it_may() {
        let component = |id: &str| Some(Target::Component(id.to_owned()));
        for (allowed, uri, expected) in [
            (&["http://b.spin.internal"][..], "http://b.spin.internal/x?y", component("b")),
            (&["http://*.spin.internal"], "http://B.Spin.Internal/", component("b")),
            (&["http://b.spin.internal"], "http://c.spin.internal/", None),
            (&["https://*"], "http://b.spin.internal/", None),
            (&["http://self"], "/path", Some(Target::Application)),
            (&["http://self"], "http://self.alt/path", Some(Target::Application)),
            (&["http://b"], "/path", None),
            (&["http://b"], "http://b/path", Some(Target::Elsewhere)),
            (&["http://b:81"], "http://b/path", None),
            (&[], "http://b/path", None),
        ] {
            assert_eq!(target(allowed, uri), expected, "{allowed:?}: {uri}");
        }
    }
}
