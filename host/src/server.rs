//! The data plane's listener: accepts connections, speaks HTTP/1.1, drains.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, info, warn};

use crate::host::Host;
use crate::request;

/// A client has this long to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const HEAD_MOST: usize = 64 << 10;
/// Connections at a time; more wait to be accepted.
const CONNECTIONS_MOST: usize = 4096;
/// After a shutdown begins, requests under way have this long to finish, or the longest deadline.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// After accepting failed (too many open files ...), wait before the next attempt.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` is done, then lets requests under way finish.
pub async fn serve(
    listener: TcpListener,
    host: Arc<Host>,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let graceful = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    let background = tokio::spawn({
        let host = Arc::clone(&host);
        async move {
            tokio::join!(host.load_models(), host.sweep());
        }
    });
    let places = Arc::new(Semaphore::new(CONNECTIONS_MOST));
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((listener.accept().await?.0, place))
        };
        let accepted = tokio::select! {
            accepted = accept => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, place)) => serve_connection(stream, place, Arc::clone(&host), &graceful),
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    background.abort();
    host.drain();
    drop(listener);
    info!("draining");
    let limit = DRAIN_TIMEOUT.max(host.longest_deadline());
    match tokio::time::timeout(limit, graceful.shutdown()).await {
        Ok(()) => info!("drained"),
        Err(_) => warn!(after = ?limit, "requests were still under way; ending them"),
    }
    Ok(())
}

fn serve_connection(
    stream: TcpStream,
    place: OwnedSemaphorePermit,
    host: Arc<Host>,
    graceful: &GracefulShutdown,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot set TCP_NODELAY");
    }
    let service = service_fn(move |request| {
        let host = Arc::clone(&host);
        async move { Ok::<_, Infallible>(request::handle(&host, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MOST)
        .serve_connection(TokioIo::new(stream), service);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%error, "connection ended");
        }
        drop(place);
    });
}
