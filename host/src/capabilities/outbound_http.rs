//! OutboundHttpCtx HTTP requests of guests, as their manifest grants: to components and routes of the
//! application by service chaining, and to other hosts over a shared pool of connections.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::uri::{Authority as UriAuthority, Scheme, Uri};
use http::{HeaderName, Request, Response};
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
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody,
    WasiHttpHooks,
};

use crate::config::app::ComponentSpec;
use crate::config::blocked_networks::BlockedNetworks;
use crate::guest::offload::AbortOnDrop;
use crate::http::authority::Authority;
use crate::http::body::Body;
use crate::http::body::instance_body::InstanceBodies;
use crate::http::reserved::INTERNAL;

/// Default timeout for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Default timeout for the head of a response, and for each next part of its body.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(600);
/// Idle timeout of a connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of idle connections to one host.
const MAX_IDLE: usize = 32;
/// Host of a request to the application's own routes.
pub const SELF: &str = "self.alt";
/// Hosts of requests to the application's own routes. SDKs send an empty host, or only a port, for a URL
/// that is only a path.
const OWN_HOSTS: [&str; 3] = ["", "self", SELF];
/// Maximum number of different hosts that concurrent requests of one instance have.
const MAX_SERVED_HOSTS: usize = 16;

/// How the component that serves a chained request is found.
#[derive(Debug)]
pub enum Via {
    /// By the route that matches the path.
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

/// Sends the requests of all guests.
pub struct OutboundHttp {
    client: Client<HttpsConnector<HttpConnector<Resolver>>, WasiBody>,
    blocked: BlockedNetworks,
    /// The application, set once it is assembled.
    application: OnceLock<Weak<dyn Chain>>,
}

impl std::fmt::Debug for OutboundHttp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outside").finish_non_exhaustive()
    }
}

impl OutboundHttp {
    /// Sends requests except to networks that are `blocked`; `tls` verifies certificates.
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

    /// The networks to which no guest can connect.
    #[must_use]
    pub fn blocked(&self) -> &BlockedNetworks {
        &self.blocked
    }

    /// Sets the application that serves chained requests.
    pub fn connect(&self, application: Weak<dyn Chain>) {
        // Called once, when the host is assembled.
        let _ = self.application.set(application);
    }
}

/// Resolves names to addresses outside of the blocked networks.
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

/// The outbound HTTP state of an instance.
#[derive(Clone, Debug)]
pub struct OutboundHttpCtx {
    pub outbound_http: Arc<OutboundHttp>,
    /// One for each concurrent request of the component to another host.
    pub request_permits: Arc<Semaphore>,
    pub spec: Arc<ComponentSpec>,
    /// Number of components that the request it serves has passed through, itself included.
    pub hops: usize,
    /// The hosts of the requests that it serves, if it may send requests to its own application.
    pub served_hosts: Vec<UriAuthority>,
    /// The bodies that the instance writes.
    pub bodies: Arc<InstanceBodies>,
    /// Whether the last message of `wasi:http` 0.3 has a body that the instance has received and
    /// passes on. The host writes that, so it does not end with the instance.
    pub passed_on: bool,
}

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
enum Destination {
    /// The component with this id.
    Component(String),
    /// A route of the application.
    Application,
    External,
}

impl OutboundHttpCtx {
    /// Called for each request that the instance serves. `concurrent`: while it serves others. It is then
    /// unknown for which of them the guest sends a request.
    pub fn serve<B>(&mut self, request: &Request<B>, hops: usize, concurrent: bool) {
        self.hops = if concurrent { hops.max(self.hops) } else { hops };
        if !self.spec.outbound_hosts.allows_self() {
            return;
        }
        if !concurrent || self.served_hosts.len() == MAX_SERVED_HOSTS {
            self.served_hosts.clear();
        }
        let host = request.uri().authority().filter(|host| !self.served_hosts.contains(host));
        self.served_hosts.extend(host.cloned());
    }

    /// The destination of a request to `uri`, if the component is granted it.
    fn destination(&self, uri: &Uri) -> Result<Destination, Error> {
        let allowed = &self.spec.outbound_hosts;
        let scheme = uri.scheme_str().unwrap_or(Scheme::HTTP.as_str());
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        let granted = if OWN_HOSTS.contains(&host.as_str()) {
            allowed.allows_self().then_some(Destination::Application)
        } else if allowed.allows(scheme, &host, uri.port_u16()) {
            Some(match host.strip_suffix(INTERNAL) {
                Some(id) => Destination::Component(id.to_owned()),
                None => Destination::External,
            })
        } else {
            // `fetch("/path")` in JavaScript is for the host of the request that the guest serves.
            let own = allowed.allows_self() && self.serves(uri, scheme);
            own.then_some(Destination::Application)
        };
        granted.ok_or(Error::HttpRequestDenied)
    }

    /// Whether the host of `uri` is that of a request that the instance serves.
    fn serves(&self, uri: &Uri, scheme: &str) -> bool {
        fn parsed(host: &UriAuthority) -> Option<Authority<'_>> {
            Authority::parse(host.as_str().as_bytes()).ok()
        }
        let Some(host) = uri.authority().and_then(parsed) else { return false };
        self.served_hosts.iter().filter_map(parsed).any(|served| served.is_same(host, scheme))
    }

    /// Whether the instance passes on the body of the message that was just converted.
    pub fn take_passed_on(&mut self) -> bool {
        std::mem::take(&mut self.passed_on)
    }

    /// Sends a request to a component or route of the application.
    async fn chain(
        self,
        via: Via,
        request: Request<WasiBody>,
    ) -> Result<Response<WasiBody>, Error> {
        let application = self.outbound_http.application.get().and_then(Weak::upgrade);
        let application = application.ok_or(Error::DestinationUnavailable)?;
        // In a task of its own: another store must not run within the event loop of this one.
        let response = tokio::spawn(application.chain(via, self.hops, request));
        let response = AbortOnDrop(response).await.map_err(|_| Error::DestinationUnavailable)?;
        Ok(response.map(BodyExt::boxed_unsync))
    }

    /// Sends a request to another host.
    async fn send(
        self,
        mut request: Request<WasiBody>,
        options: Option<RequestOptions>,
    ) -> Result<Response<WasiBody>, Error> {
        // The resolver does not see a host that is an address.
        if request.uri().host().is_some_and(|host| self.outbound_http.blocked.blocks_host(host)) {
            return Err(Error::DestinationIpProhibited);
        }
        let options = options.unwrap_or_default();
        let connect_timeout = options.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        let permit = timeout(connect_timeout, self.request_permits.acquire_owned()).await;
        let Ok(Ok(permit)) = permit else { return Err(Error::ConnectionLimitReached) };
        let mut connected = capture_connection(&mut request);
        let mut response = pin!(self.outbound_http.client.request(request));
        let connected = async { drop(connected.wait_for_connection_metadata().await) };
        let response = tokio::select! {
            biased;
            response = response.as_mut() => response,
            connected = timeout(connect_timeout, connected) => {
                connected.map_err(|_| Error::ConnectionTimeout)?;
                let head_timeout = options.first_byte_timeout.unwrap_or(RESPONSE_TIMEOUT);
                timeout(head_timeout, response).await.map_err(|_| Error::HttpResponseTimeout)?
            }
        };
        let response = response.map_err(|error| convert_error(&error))?;
        // The permit is held until the body is complete, as that keeps the connection.
        let body_timeout = options.between_bytes_timeout.unwrap_or(RESPONSE_TIMEOUT);
        let response = response.map(|body| body.map_err(Error::from).boxed_unsync());
        Ok(response.map(|body| Body::fetched(body, body_timeout, permit).boxed_unsync()))
    }
}

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(Response<WasiBody>, Io), Error>;

impl WasiHttpHooks for OutboundHttpCtx {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        DEFAULT_FORBIDDEN_HEADERS.contains(name)
    }

    /// wasmtime calls it only for the trailers of a message whose body the host writes, ...
    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        self.passed_on = true;
        Arc::new(|name| DEFAULT_FORBIDDEN_HEADERS.contains(name))
    }

    /// ... and this only for one whose body the guest writes.
    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        self.passed_on = false;
        wasmtime_wasi_http::p3::DEFAULT_OUTGOING_BODY_CHUNK_SIZE
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _io: Io,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let request = match self.take_passed_on() {
            true => request,
            false => request.map(|body| self.bodies.request(body).boxed_unsync()),
        };
        let (outbound, destination) = (self.clone(), self.destination(request.uri()));
        Box::new(async move {
            let response = match destination? {
                Destination::Component(id) => outbound.chain(Via::Component(id), request).await,
                Destination::Application => outbound.chain(Via::Route, request).await,
                Destination::External => outbound.send(request, options).await,
            };
            Ok((response?, Box::new(std::future::ready(Ok(()))) as Io))
        })
    }
}

/// The error that a guest receives for a request that failed.
fn convert_error(error: &ClientError) -> Error {
    let mut sources = std::iter::successors(error.source(), |&error| error.source());
    let mut io = sources.find_map(|source| source.downcast_ref::<io::Error>());
    // TLS errors are nested in I/O errors, which may be nested themselves.
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
    use crate::http::body::instance_body::StreamLimits;

    /// The destination of a request to `uri` of an instance that serves requests for `served`.
    fn destination(allowed: &[&str], served: &[&str], uri: &str) -> Option<Destination> {
        let mut spec = ComponentSpec::default();
        for host in allowed {
            spec.outbound_hosts.add(OutboundHost::parse(host).unwrap());
        }
        let tls = crate::http::client_tls::client().unwrap();
        let outbound_http = Arc::new(OutboundHttp::new(BlockedNetworks::default(), &tls));
        let request_permits = Arc::new(Semaphore::new(1));
        let minute = Duration::from_secs(60);
        let limits = StreamLimits { idle: minute, total: None, linger: minute };
        let mut outbound = OutboundHttpCtx {
            outbound_http,
            request_permits,
            spec: Arc::new(spec),
            hops: 1,
            served_hosts: Vec::new(),
            bodies: InstanceBodies::new(limits),
            passed_on: false,
        };
        for (number, host) in served.iter().enumerate() {
            let request = Request::get(format!("http://{host}/")).body(()).unwrap();
            outbound.serve(&request, 1, number > 0);
        }
        outbound.destination(&uri.parse().unwrap()).ok()
    }

    #[test]
    fn destination_follows_from_host_and_grants() {
        let component = |id: &str| Some(Destination::Component(id.to_owned()));
        for (allowed, uri, expected) in [
            (&["http://b.spin.internal"][..], "http://b.spin.internal/x?y", component("b")),
            (&["http://*.spin.internal"], "http://B.Spin.Internal/", component("b")),
            (&["http://b.spin.internal"], "http://c.spin.internal/", None),
            (&["https://*"], "http://b.spin.internal/", None),
            (&["http://b"], "/path", None),
            (&["http://b"], "http://b/path", Some(Destination::External)),
            (&["http://b:81"], "http://b/path", None),
            (&[], "http://b/path", None),
        ] {
            assert_eq!(destination(allowed, &[], uri), expected, "{allowed:?}: {uri}");
        }
    }

    #[test]
    fn requests_to_self_need_only_the_grant_of_self() {
        for uri in [
            "/path",
            "http://:80/path",
            "https://:443/path",
            "http://self/path",
            "https://self.alt/path",
            "http://SELF.alt:3000/path",
        ] {
            for allowed in ["http://self", "https://self", "http://*", "*://*:*"] {
                let found = destination(&[allowed], &[], uri);
                assert_eq!(found, Some(Destination::Application), "{allowed}: {uri}");
            }
            for allowed in ["http://b", "https://self.org", "redis://self", "http://*.alt"] {
                assert_eq!(destination(&[allowed], &[], uri), None, "{allowed}: {uri}");
            }
        }
    }

    #[test]
    fn host_of_a_served_request_is_self_unless_it_is_granted() {
        let application = || Some(Destination::Application);
        for (allowed, served, uri, expected) in [
            ("http://self", &["a.org:3000"][..], "http://a.org:3000/path", application()),
            ("http://self", &["A.org"], "https://a.org:443/path", application()),
            ("http://self", &["a.org", "b.org"], "http://a.org/", application()),
            ("http://self", &["a.org", "b.org"], "http://b.org/", application()),
            ("http://self", &["a.org"], "http://b.org/", None),
            ("http://self", &["a.org"], "http://a.org:81/", None),
            ("http://self", &["a.org"], "http://user@a.org/", None),
            ("http://a.org", &["a.org"], "http://a.org/", Some(Destination::External)),
            ("http://*", &["a.org"], "http://a.org/", Some(Destination::External)),
            ("http://b.org", &["a.org"], "http://a.org/", None),
        ] {
            assert_eq!(destination(&[allowed], served, uri), expected, "{allowed}: {uri}");
        }
        let many: Vec<_> = (0..100).map(|number| format!("{number}.org")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(destination(&["http://self"], &many, "http://99.org/"), application());
        assert_eq!(destination(&["http://self"], &many, "http://0.org/"), None, "bounded");
    }
}
