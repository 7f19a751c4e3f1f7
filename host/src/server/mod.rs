//! The listener of the data plane: accepts connections, serves HTTP/1.1 and HTTP/2, over TLS if it has
//! a certificate, and drains at shutdown.

pub mod accept_errors;
pub mod connections;
pub mod listen_address;
pub mod outgoing_body;
pub mod preface;
pub mod reset;
pub mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use http::header::{CONNECTION, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use crate::experiment::supervisor;
use crate::host::{Host, Listening};
use crate::http::spin_headers::RequestSource;
use crate::request;
use crate::server::accept_errors::AcceptErrors;
use crate::server::connections::{
    ClientConnection, ConnectionLimiter, ConnectionPermit, Drain, HEAD_TIMEOUT,
};
use crate::server::outgoing_body::{H2Executor, OutgoingBody};
use crate::server::preface::PrefaceTimeout;
use crate::server::reset::ResetOnAbort;

/// Timeout of a write that the client does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum size of the head of a request, in bytes.
const MAX_HEAD: u32 = 64 << 10;
/// Maximum number of concurrent requests on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;
/// Interval between PING frames on an HTTP/2 connection, and the timeout of each.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Time for requests in flight to finish after the drain, unless the longest deadline of a component is
/// longer.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for connections to close after their streamed responses were cut off at shutdown.
const CUT_OFF_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves until `shutdown` completes, then drains and closes all connections. When the models are loaded,
/// `loaded` is called with whether the host is ready.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    host: Arc<Host>,
    loaded: impl FnOnce(bool) + Send + 'static,
    shutdown: impl Future<Output = Drain>,
) -> anyhow::Result<()> {
    let local = listener.local_addr()?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    host.listens(Listening { scheme, address: local });
    let connections =
        Arc::new(ConnectionLimiter::new(host.connection_limits(), host.response_memory().clone()));
    let loading = tokio::spawn({
        let host = Arc::clone(&host);
        async move {
            host.load_models().await;
            loaded(host.ready().is_ok());
            host.retry_models().await;
        }
    });
    let background = tokio::spawn({
        let host = Arc::clone(&host);
        async move {
            tokio::join!(host.sweep(), host.cache().run_redis(), supervisor::run(&host));
        }
    });
    let (accepting, stop) = watch::channel(());
    let acceptor = Acceptor {
        local,
        listener: Arc::new(listener),
        tls,
        host: Arc::clone(&host),
        connections: Arc::clone(&connections),
        errors: Arc::default(),
        stop,
    };
    let mut acceptors = JoinSet::new();
    for _ in 0..tokio::runtime::Handle::current().metrics().num_workers() {
        acceptors.spawn(acceptor.clone().accept());
    }
    drop(acceptor);
    let drain = shutdown.await;
    // Loading models must not mark the host as ready again.
    loading.abort();
    let _ = loading.await;
    host.drain();
    let drained = connections.drain(drain);
    info!(time = ?drain.time, "draining");
    drained.await;
    drop(accepting);
    while acceptors.join_next().await.is_some() {}
    let limit = SHUTDOWN_TIMEOUT.max(host.longest_deadline());
    match timeout(limit, connections.close()).await {
        Ok(()) => info!("drained"),
        Err(_) => {
            warn!(after = ?limit, "requests are still in flight; closing their connections");
            host.cut_off_streams();
            // The connections report that to their clients.
            let _ = timeout(CUT_OFF_TIMEOUT, connections.close()).await;
        }
    }
    background.abort();
    Ok(())
}

/// Accepts connections. Each worker thread has one, so that short connections do not queue behind
/// one thread.
#[derive(Clone)]
struct Acceptor {
    /// The address that it listens on.
    local: SocketAddr,
    listener: Arc<TcpListener>,
    tls: Option<TlsAcceptor>,
    host: Arc<Host>,
    connections: Arc<ConnectionLimiter>,
    errors: Arc<AcceptErrors>,
    /// Closed when no more connections are accepted.
    stop: watch::Receiver<()>,
}

impl Acceptor {
    async fn accept(mut self) {
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                // Connections that wait already are accepted before the listener is closed.
                biased;
                accepted = self.accept_one() => {
                    if let Some((stream, address, permit)) = accepted {
                        self.serve(stream, address, permit);
                    }
                }
                _ = stop.changed() => return,
            }
        }
    }

    async fn accept_one(&mut self) -> Option<(TcpStream, SocketAddr, ConnectionPermit)> {
        let permit = self.connections.permit().await;
        match self.listener.accept().await {
            Ok((stream, address)) => {
                self.errors.accepted();
                Some((stream, address, permit))
            }
            Err(error) => {
                drop(permit);
                if self.errors.failed(&error) {
                    self.connections.shrink();
                    AcceptErrors::pause().await;
                }
                None
            }
        }
    }

    fn serve(&self, stream: TcpStream, address: SocketAddr, permit: ConnectionPermit) {
        let connection = self.connections.open(permit, address);
        let local = stream.local_addr().unwrap_or(self.local);
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "cannot set TCP_NODELAY");
        }
        // A client that does not read its responses must not hold its permit forever.
        let stream = ResetOnAbort::new(stream, Arc::clone(connection.abort()));
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let stream = Box::pin(stream);
        let (host, tls) = (Arc::clone(&self.host), self.tls.clone());
        let client = move |scheme| RequestSource { address, local, scheme, hops: 0 };
        // Two tasks, since a task is as large as the largest future in it: a connection without TLS
        // does not need the memory of one with it.
        match tls {
            None => tokio::spawn(serve_connection(stream, client("http"), host, connection)),
            Some(tls) => tokio::spawn(async move {
                let accepted = tokio::select! {
                    accepted = timeout(HEAD_TIMEOUT, tls.accept(stream)) => accepted,
                    () = connection.closing() => return,
                };
                match accepted {
                    Ok(Ok(stream)) => {
                        serve_connection(stream, client("https"), host, connection).await;
                    }
                    Ok(Err(error)) => debug!(%error, "TLS handshake failed"),
                    Err(_) => debug!("TLS handshake timed out"),
                }
            }),
        };
    }
}

/// Serves the requests of one connection until it is closed.
async fn serve_connection<S>(
    stream: S,
    client: RequestSource,
    host: Arc<Host>,
    connection: ClientConnection,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(|request| {
        let version = request.version();
        let (host, in_flight) = (Arc::clone(&host), connection.begin(version));
        async move {
            let mut response = request::handle(&host, client, request).await;
            if version <= Version::HTTP_11 && in_flight.is_last() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(OutgoingBody::of(response, in_flight))
        }
    });
    let mut builder = auto::Builder::new(H2Executor);
    builder
        .http1()
        .timer(TokioTimer::new())
        // `connections` applies the idle timeout to both versions of HTTP.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD as usize)
        .writev(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD)
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL);
    let stream = TokioIo::new(PrefaceTimeout::new(stream, HEAD_TIMEOUT));
    let mut serving = pin!(builder.serve_connection(stream, service));
    let ended = tokio::select! {
        biased;
        ended = serving.as_mut() => ended,
        () = connection.aborted() => Ok(()),
        () = connection.closing() => {
            // Sends GOAWAY, and serves requests that the client sent before it received that.
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                ended = serving.as_mut() => ended,
                () = connection.aborted() => Ok(()),
                () = connection.close_timeout() => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        debug!(error, "connection ended");
    }
}
