use futures::FutureExt;

use super::*;

fn connections(max: usize, keep_alive: Duration) -> Arc<ConnectionLimiter> {
    Arc::new(ConnectionLimiter::new(
        ConnectionLimits { max, keep_alive },
        ResponseMemory::new(1 << 20, 1 << 20),
    ))
}

async fn opened(all: &Arc<ConnectionLimiter>) -> ClientConnection {
    all.open(all.permit().await, ([127, 0, 0, 1], 1).into())
}

fn closing<'a>(connections: impl IntoIterator<Item = &'a ClientConnection>) -> Vec<bool> {
    connections.into_iter().map(|one| one.state.is_closing()).collect()
}

/// Serves one request.
fn serve(connection: &ClientConnection) {
    drop(connection.begin(Version::HTTP_11));
}

#[tokio::test]
async fn longest_idle_connection_is_closed_to_admit_another() {
    let all = connections(4, Duration::from_secs(60));
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(opened(&all).await);
    }
    assert_eq!(closing(&open), [false; 3]);
    let busy = open[0].begin(Version::HTTP_11);
    serve(&open[1]);
    open.push(opened(&all).await);
    assert_eq!(closing(&open), [false, false, true, false]);
    // One is closing already, which admits the next.
    drop(open.remove(2));
    open.push(opened(&all).await);
    assert_eq!(closing(&open), [false, true, false, false]);
    drop(busy);
}

#[tokio::test]
async fn connection_beyond_the_limit_waits_until_one_is_idle() {
    let all = connections(1, Duration::from_secs(60));
    let only = opened(&all).await;
    let busy = only.begin(Version::HTTP_11);
    let mut next = std::pin::pin!(all.permit());
    assert!(timeout(3 * POLL_INTERVAL, next.as_mut()).await.is_err());
    assert_eq!(closing([&only]), [false]);
    drop(busy);
    tokio::select! {
        _ = next.as_mut() => unreachable!("there is one permit"),
        () = only.closing() => {}
    }
    drop(only);
    next.await;
}

#[tokio::test]
async fn idle_connection_is_closed_after_keep_alive() {
    let keep_alive = Duration::from_millis(30);
    let all = connections(1, keep_alive);
    let one = opened(&all).await;
    assert_eq!(one.state.idle_timeout(), HEAD_TIMEOUT, "before the first request");
    let busy = one.begin(Version::HTTP_11);
    serve(&one);
    assert!(timeout(3 * keep_alive, one.closing()).await.is_err(), "a request is in flight");
    drop(busy);
    let idle = Instant::now();
    one.closing().await;
    assert!(idle.elapsed() >= keep_alive);
    let closing = Instant::now();
    one.close_timeout().await;
    assert!(closing.elapsed() >= CLOSE_TIMEOUT);
}

#[tokio::test]
async fn closing_the_listener_closes_every_connection() {
    let all = connections(3, Duration::from_secs(60));
    let (one, two) = (opened(&all).await, opened(&all).await);
    let mut closed = std::pin::pin!(all.close());
    assert!(closed.as_mut().now_or_never().is_none());
    assert_eq!(closing([&one, &two]), [true; 2]);
    one.closing().await;
    drop(one);
    assert!(closed.as_mut().now_or_never().is_none());
    drop(two);
    closed.await;
}

#[tokio::test]
async fn draining_closes_http2_at_once_and_http1_after_its_next_response() {
    let all = connections(8, Duration::from_secs(60));
    let (silent, http1, http2) = (opened(&all).await, opened(&all).await, opened(&all).await);
    assert!(!http1.begin(Version::HTTP_11).is_last());
    assert!(!http2.begin(Version::HTTP_2).is_last());
    let drain = Drain::complete(Duration::from_millis(50));
    let start = Instant::now();
    let mut drained = std::pin::pin!(all.drain(drain));
    assert!(drained.as_mut().now_or_never().is_none());
    assert_eq!(closing([&silent, &http1, &http2]), [false, false, true]);
    assert!(http1.begin(Version::HTTP_11).is_last());
    // A new connection is accepted. Over HTTP/2 it is closed in order once it has a request: earlier, its
    // request would be lost.
    let new = opened(&all).await;
    assert_eq!(closing([&new]), [false]);
    let request = new.begin(Version::HTTP_2);
    assert_eq!(closing([&new]), [true]);
    drop((request, silent, http1, http2, new));
    drained.await;
    assert!(start.elapsed() >= drain.time, "it is ready for the whole time");
}

#[tokio::test]
async fn short_drain_ends_with_the_last_connection() {
    let all = connections(8, Duration::from_secs(60));
    let drain = Drain::short(Duration::from_secs(3600));
    assert_eq!(drain.time, SHORT_DRAIN);
    all.drain(drain).now_or_never().expect("no connection is open");
    let open = opened(&all).await;
    let mut drained = std::pin::pin!(all.drain(drain));
    assert!(drained.as_mut().now_or_never().is_none());
    drop(open);
    drained.now_or_never().expect("no connection is open any more");
}
