//! Open-loop load: requests are sent on a schedule, even before earlier responses have arrived, and
//! latency counts from the time when a request was due. So every request that a stalled server
//! delays counts, which a closed loop hides (coordinated omission).
//!
//! One thread without a runtime, as it shares the cores with the server.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::client::Response;

/// Timeout of a response.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A load on a schedule.
#[derive(Clone, Copy, Debug)]
pub struct Schedule<'a> {
    /// The encoded requests: one after the other, then from the first again.
    pub encoded: &'a [Vec<u8>],
    /// Requests per second, evenly spaced; if infinite, each connection sends the next request at
    /// once.
    pub rate: f64,
    /// Number of requests.
    pub requests: u32,
    /// Number of keep-alive connections. A request that is due uses a free one, or waits for one.
    pub connections: usize,
}

/// The result of a load.
#[derive(Debug)]
pub struct Outcome {
    /// Time from when a request was due to the end of its response, in nanoseconds.
    pub latency: Histogram<u64>,
    /// Lag of the load generator: time from when a request was due and had a connection to when it
    /// was sent, in nanoseconds. If it is not far below the latency, it dominates the latency.
    pub lag: Histogram<u64>,
    /// Duration of the load.
    pub took: Duration,
}

impl Outcome {
    /// Responses per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.latency.len() as f64 / self.took.as_secs_f64()
    }

    /// A quantile of the latency, in milliseconds.
    #[must_use]
    pub fn latency_ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e6
    }

    /// A quantile of the lag, in milliseconds.
    #[must_use]
    pub fn lag_ms(&self, quantile: f64) -> f64 {
        self.lag.value_at_quantile(quantile) as f64 / 1e6
    }
}

struct LoadConnection {
    stream: TcpStream,
    /// Time at which its request was due.
    due: Instant,
    /// Time since which it has no request.
    free_since: Instant,
    buffer: Vec<u8>,
    filled: usize,
}

/// Event data of the timer; that of a connection is its index.
const TIMER: u64 = u64::MAX;

/// Sends the load and waits for every response.
///
/// # Errors
/// If a response is not 200, or does not arrive in time.
pub fn run(address: SocketAddr, load: Schedule<'_>) -> Result<Outcome> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut connections = (0..load.connections)
        .map(|_| LoadConnection::open(address))
        .collect::<Result<Vec<_>>>()
        .context("cannot connect")?;
    for (connection, index) in connections.iter().zip(0..) {
        epoll::add(&epoll, &connection.stream, EventData::new_u64(index), EventFlags::IN)?;
    }
    // Timeouts of epoll are whole milliseconds, in which many requests are due.
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
    // Edge-triggered, so that it need not be read.
    epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN | EventFlags::ET)?;

    let mut outcome =
        Outcome { latency: Histogram::new(3)?, lag: Histogram::new(3)?, took: Duration::ZERO };
    // The connection that is free the longest is the next.
    let mut free: VecDeque<usize> = (0..connections.len()).collect();
    let mut events = Vec::with_capacity(connections.len() + 1);
    let timeout = Timespec::try_from(TIMEOUT)?;
    let start = Instant::now();
    let due = |request: u32| start + Duration::from_secs_f64(f64::from(request) / load.rate);
    let (mut sent, mut received) = (0, 0);
    // The request that the timer is set for.
    let mut woken_for = None;
    while received < load.requests {
        while sent < load.requests && !free.is_empty() {
            let (now, due) = (Instant::now(), due(sent));
            if due > now {
                if woken_for != Some(sent) {
                    wake(&timer, due - now)?;
                    woken_for = Some(sent);
                }
                break;
            }
            let Some(index) = free.pop_front() else { break };
            let could = due.max(connections[index].free_since);
            let request = &load.encoded[sent as usize % load.encoded.len()];
            connections[index].send(request, due)?;
            outcome.lag.record(nanoseconds(now - could))?;
            sent += 1;
        }
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), Some(&timeout))?;
        ensure!(!events.is_empty(), "no response in {TIMEOUT:?}");
        for event in events.drain(..) {
            let data = event.data.u64();
            if data == TIMER {
                woken_for = None;
                continue;
            }
            let index = usize::try_from(data)?;
            if connections[index].receive()? {
                let connection = &mut connections[index];
                connection.free_since = Instant::now();
                let latency = connection.free_since - connection.due;
                outcome.latency.record(nanoseconds(latency))?;
                received += 1;
                free.push_back(index);
            }
        }
    }
    outcome.took = start.elapsed();
    Ok(outcome)
}

fn wake(timer: &OwnedFd, after: Duration) -> Result<()> {
    // A timer of 0 is disabled, so the minimum is a microsecond.
    let after = after.max(Duration::from_micros(1));
    let never = Timespec { tv_sec: 0, tv_nsec: 0 };
    let once = Itimerspec { it_interval: never, it_value: Timespec::try_from(after)? };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
    Ok(())
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl LoadConnection {
    fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let now = Instant::now();
        Ok(Self { stream, due: now, free_since: now, buffer: vec![0; 16 << 10], filled: 0 })
    }

    fn send(&mut self, request: &[u8], due: Instant) -> Result<()> {
        self.due = due;
        // The send buffer is empty, so a small request always fits.
        self.stream.write_all(request).context("cannot send a request")
    }

    /// Reads available bytes. Returns whether the response is complete.
    fn receive(&mut self) -> Result<bool> {
        match self.stream.read(&mut self.buffer[self.filled..]) {
            Ok(0) => anyhow::bail!("the server closed the connection, or its response is too long"),
            Ok(read) => self.filled += read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let Some(response) = Response::parse(&self.buffer[..self.filled])? else {
            return Ok(false);
        };
        let Response { status, body, .. } = response;
        ensure!(status == 200, "status {status}: {}", String::from_utf8_lossy(&body));
        self.filled = 0;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// The server responds to the first request after a stall, and to the others at once.
    #[test]
    fn requests_that_are_due_during_a_stall_count() {
        const STALL: Duration = Duration::from_millis(200);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut stall = Some(STALL);
            while stream.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {
                if let Some(stall) = stall.take() {
                    std::thread::sleep(stall);
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            }
        });
        let encoded = &[b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()];
        // One per millisecond.
        let load = Schedule { encoded, rate: 1000.0, requests: 150, connections: 1 };
        let outcome = run(address, load).unwrap();
        assert_eq!((outcome.latency.len(), outcome.lag.len()), (150, 150));
        // All were due before the stall ended, the last one 51 ms before.
        assert!(outcome.latency.min() >= nanoseconds(Duration::from_millis(50)));
        assert!(outcome.latency.max() >= nanoseconds(STALL));
        assert!(outcome.took >= STALL);
    }
}
