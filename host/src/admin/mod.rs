//! The admin plane: a listener of its own, for operators. `endpoints` responds to requests,
//! [`guard`] authorizes them. The admin plane is not reachable through the data plane's listener. A
//! guest reaches it like any other address, if its `allowed_outbound_hosts` grant it.

mod collect;
mod drift;
mod endpoints;
mod experiments;
pub mod guard;
mod parameters;
mod refusal;
mod response;
pub mod stats;

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tracing::{debug, warn};

pub use drift::{DRIFT, DRIFT_WINDOWS};
pub use endpoints::{CACHE, COMPONENT, LOG_STATS, METRICS, MODEL, Purged, ROUTE, STATS};
pub use experiments::EXPERIMENTS;
use guard::{Guard, TOKEN};
use refusal::Refusal;

use crate::host::Host;
use crate::http::body::Body;
use crate::http::body::error::BodyError;
use crate::server::accept_errors::AcceptErrors;
use crate::server::listen_address::{BoundAddress, ListenAddress};

/// Default address.
pub const DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3001);

/// A free port on the default address.
const ANY_PORT: SocketAddr = SocketAddr::new(DEFAULT.ip(), 0);

/// Time for a request's head to arrive, and idle timeout between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Time after which a connection is closed whose client does not read its response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum size of a request's head, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// Maximum number of concurrent connections. More wait to be accepted.
const MAX_CONNECTIONS: usize = 64;

/// The bound address, and the guard of its requests.
#[derive(Debug)]
pub struct Admin {
    bound: BoundAddress,
    guard: Guard,
    /// Whether to listen on another port if that is in use: it was not requested.
    may_move: bool,
}

/// The admin plane, which accepts connections.
#[derive(Debug)]
pub struct AdminListener {
    listener: TcpListener,
    guard: Guard,
}

impl Admin {
    /// Binds the `requested` address. Without one, binds the default address or, if that is in use
    /// (most likely by another host on the machine), any free port.
    ///
    /// # Errors
    /// Fails if the requested address cannot be bound, or requires a token.
    pub fn bind(requested: Option<&ListenAddress>) -> Result<Self> {
        let candidates = match requested {
            Some(requested) => requested.resolve().context("--admin")?,
            None => vec![DEFAULT],
        };
        let token = match std::env::var(TOKEN) {
            Ok(token) => Some(token),
            Err(std::env::VarError::NotPresent) => None,
            Err(error) => return Err(error).context(TOKEN),
        };
        // Any of the candidates may be bound: the guard is for the most exposed one.
        let exposed = candidates.iter().find(|address| !address.ip().is_loopback());
        let guard = Guard::new(token.as_deref(), *exposed.unwrap_or(&candidates[0]))?;
        let bound = match BoundAddress::bind(&candidates) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && requested.is_none() => {
                BoundAddress::bind(&[ANY_PORT])
            }
            bound => bound,
        };
        let bound = bound.with_context(|| {
            let tried: Vec<_> = candidates.iter().map(ToString::to_string).collect();
            format!(
                "cannot listen on {} for the admin plane; use --admin for another address (port 0 \
                 for any free port), or --no-admin to disable it",
                tried.join(" or ")
            )
        })?;
        Ok(Self { bound, guard, may_move: requested.is_none() })
    }

    /// Starts to listen, within a runtime.
    ///
    /// # Errors
    /// Another process listens on the requested address since it was bound.
    pub fn listen(self) -> Result<AdminListener> {
        let Self { bound, guard, may_move } = self;
        let bound_address = bound.address();
        let listener = match bound.listen() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && may_move => {
                BoundAddress::bind(&[ANY_PORT]).and_then(BoundAddress::listen)
            }
            listening => listening,
        };
        let listener = listener
            .with_context(|| format!("cannot listen on {bound_address} for the admin plane"))?;
        let address = listener.local_addr()?;
        if may_move && address != DEFAULT {
            warn!(
                "{DEFAULT} is in use: the admin plane listens on {address}; use --admin to choose an \
                 address"
            );
        }
        Ok(AdminListener { listener, guard })
    }
}

impl AdminListener {
    /// # Errors
    /// The system does not return the address.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
    /// Serves connections, forever.
    pub async fn serve(self, host: Arc<Host>) {
        let guard = Arc::new(self.guard);
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let errors = AcceptErrors::default();
        loop {
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    errors.accepted();
                    let (guard, host) = (Arc::clone(&guard), Arc::clone(&host));
                    tokio::spawn(async move {
                        serve_connection(stream, guard, host).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    if errors.failed(&error) {
                        AcceptErrors::pause().await;
                    }
                }
            }
        }
    }
}

/// Serves the requests of one connection.
async fn serve_connection(stream: TcpStream, guard: Arc<Guard>, host: Arc<Host>) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let service = service_fn(move |request| {
        let (guard, host) = (Arc::clone(&guard), Arc::clone(&host));
        async move { Ok::<_, Infallible>(respond(&guard, host, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    if let Err(error) = connection.await {
        debug!(%error, "connection to the admin plane failed");
    }
}

async fn respond<B>(guard: &Guard, host: Arc<Host>, request: Request<B>) -> Response<Body>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
{
    let (head, body) = request.into_parts();
    let response = match guard.check(&head) {
        Ok(()) if experiments::is_under(head.uri.path()) => {
            experiments::respond(&host, head, body).await
        }
        Ok(()) if drift::is_under(head.uri.path()) => drift::respond(host, head, body).await,
        Ok(()) => endpoints::respond(host, head).await,
        Err(refusal) => Err(refusal),
    };
    response.unwrap_or_else(Refusal::into_response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_default_address_falls_back_to_a_free_port() {
        // Fails if another process has the address already, which is as good.
        let _taken = std::net::TcpListener::bind(DEFAULT);
        let address = Admin::bind(None).unwrap().listen().unwrap().address().unwrap();
        assert!(address.ip().is_loopback() && address != DEFAULT);
        let error = Admin::bind(Some(&DEFAULT.into())).unwrap_err().to_string();
        assert!(error.contains("--admin") && error.contains("--no-admin"), "{error}");
    }
}
