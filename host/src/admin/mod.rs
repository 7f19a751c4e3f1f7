//! The admin plane: a listener of its own, for operators. What it answers is in [`endpoints`], whom
//! it answers in [`guard`]. Nothing of it can be reached through the data plane's listener; a guest
//! reaches it as it reaches any address, if its `allowed_outbound_hosts` say so.

mod collect;
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

pub use endpoints::{CACHE, COMPONENT, DRIFT, LOG_STATS, METRICS, MODEL, Purged, ROUTE, STATS};
pub use experiments::EXPERIMENTS;
use guard::{Guard, TOKEN};
use refusal::Refusal;

use crate::http::body::Body;
use crate::http::body::error::BodyError;
use crate::host::Host;
use crate::server::listen_address::{self, ListenAddress};

/// Where it is, unless another address is asked for.
pub const DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3001);

/// A client has this long for a request's head, and to begin with the next.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// A client that reads nothing of an answer for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;
/// Connections at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// After accepting failed (too many open files ...), wait before the next attempt.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The listener, bound, and who may ask.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    guard: Guard,
    address: SocketAddr,
}

impl Admin {
    /// At the address that is `asked` for, or fails. Otherwise at the default one; if that is taken,
    /// by another host most likely, at any port: two hosts on a machine need no flags for it.
    pub async fn bind(asked: Option<&ListenAddress>) -> Result<Self> {
        let wanted = match asked {
            Some(asked) => asked.resolve().await.context("--admin")?,
            None => vec![DEFAULT],
        };
        let token = match std::env::var(TOKEN) {
            Ok(token) => Some(token),
            Err(std::env::VarError::NotPresent) => None,
            Err(error) => return Err(error).context(TOKEN),
        };
        // Whichever of them it will be.
        let widest =
            wanted.iter().find(|address| !address.ip().is_loopback()).unwrap_or(&wanted[0]);
        let guard = Guard::new(token.as_deref(), *widest)?;
        let listener = match listen_address::bind(&wanted).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && asked.is_none() => {
                TcpListener::bind(SocketAddr::new(DEFAULT.ip(), 0)).await
            }
            bound => bound,
        };
        let listener = listener.with_context(|| {
            let tried: Vec<_> = wanted.iter().map(ToString::to_string).collect();
            format!(
                "cannot listen on {} for the admin plane; another address is given by --admin, port \
                 0 is any, --no-admin does without",
                tried.join(" or ")
            )
        })?;
        let address = listener.local_addr()?;
        if asked.is_none() && address != DEFAULT {
            warn!("the admin plane is at {address}: {DEFAULT} is taken; --admin says where it is");
        }
        Ok(Self { listener, guard, address })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves for ever.
    pub async fn serve(self, host: Arc<Host>) {
        let guard = Arc::new(self.guard);
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            // Never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (guard, host) = (Arc::clone(&guard), Arc::clone(&host));
                    tokio::spawn(async move {
                        converse(stream, guard, host).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    warn!(%error, "cannot accept a connection to the admin plane");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Answers the requests of one connection.
async fn converse(stream: TcpStream, guard: Arc<Guard>, host: Arc<Host>) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let service = service_fn(move |request| {
        let (guard, host) = (Arc::clone(&guard), Arc::clone(&host));
        async move { Ok::<_, Infallible>(answer(&guard, host, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    if let Err(error) = connection.await {
        debug!(%error, "connection to the admin plane ended");
    }
}

async fn answer<B>(guard: &Guard, host: Arc<Host>, request: Request<B>) -> Response<Body>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
{
    let (head, body) = request.into_parts();
    let answer = match guard.check(&head.headers) {
        Ok(()) if experiments::is_under(head.uri.path()) => {
            experiments::answer(&host, head, body).await
        }
        Ok(()) => endpoints::answer(host, head).await,
        Err(refusal) => Err(refusal),
    };
    answer.unwrap_or_else(Refusal::into_response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_default_address_gives_way_to_another_host() {
        // Somebody else may have it already.
        let _taken = std::net::TcpListener::bind(DEFAULT);
        let admin = Admin::bind(None).await.unwrap();
        assert!(admin.address().ip().is_loopback() && admin.address() != DEFAULT);
        let said = Admin::bind(Some(&DEFAULT.into())).await.unwrap_err().to_string();
        assert!(said.contains("--admin") && said.contains("--no-admin"), "{said}");
    }
}
