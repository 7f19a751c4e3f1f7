//! The open loop: requests are sent when they are due, whether or not earlier ones have been
//! answered, and a latency counts from when its request was due. So a server that stalls is
//! charged with everyone it kept waiting, which a closed loop hides (coordinated omission).
//!
//! One thread, no runtime: it shares the cores with the server.

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

use crate::client::Answer;

/// Nothing in this time: the server hangs.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// The bytes of the request.
    pub request: &'a [u8],
    /// Requests a second, evenly spaced; infinite: as fast as answers come.
    pub rate: f64,
    /// How many requests in all.
    pub requests: u32,
    /// Keep-alive connections; a request that is due takes any that is free, or waits for one.
    pub connections: usize,
}

/// What came of it, in nanoseconds.
#[derive(Debug)]
pub struct Outcome {
    /// From when a request was due to the end of its answer.
    pub latency: Histogram<u64>,
    /// From when a request was due and had a connection to when it was sent: how late the load
    /// generator was. If that is not far below the latency, it is what was measured.
    pub lag: Histogram<u64>,
    pub took: Duration,
}

impl Outcome {
    /// Answers a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.latency.len() as f64 / self.took.as_secs_f64()
    }

    /// The latency that the share `quantile` of the requests did not exceed.
    #[must_use]
    pub fn latency_ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e6
    }

    /// The same of the lag.
    #[must_use]
    pub fn lag_ms(&self, quantile: f64) -> f64 {
        self.lag.value_at_quantile(quantile) as f64 / 1e6
    }
}

struct Connection {
    stream: TcpStream,
    /// When its request was due.
    due: Instant,
    /// Since when it has no request.
    free_since: Instant,
    buffer: Vec<u8>,
    filled: usize,
}

/// In the events, what is not the index of a connection.
const TIMER: u64 = u64::MAX;

/// Sends the load and waits for every answer. One that is not 200 is an error.
pub fn run(address: SocketAddr, load: Load<'_>) -> Result<Outcome> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut connections = (0..load.connections)
        .map(|_| Connection::open(address))
        .collect::<Result<Vec<_>>>()
        .context("cannot connect")?;
    for (connection, index) in connections.iter().zip(0..) {
        epoll::add(&epoll, &connection.stream, EventData::new_u64(index), EventFlags::IN)?;
    }
    // Timeouts of epoll are whole milliseconds, and many requests are due in one.
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
    // Edge-triggered: it need not be read.
    epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN | EventFlags::ET)?;

    let mut outcome =
        Outcome { latency: Histogram::new(3)?, lag: Histogram::new(3)?, took: Duration::ZERO };
    // The one that is free the longest is next.
    let mut free: VecDeque<usize> = (0..connections.len()).collect();
    let mut events = Vec::with_capacity(connections.len() + 1);
    let patience = Timespec::try_from(PATIENCE)?;
    let start = Instant::now();
    let due = |request: u32| start + Duration::from_secs_f64(f64::from(request) / load.rate);
    let (mut sent, mut answered) = (0, 0);
    // The request the timer is set for.
    let mut woken_for = None;
    while answered < load.requests {
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
            connections[index].send(load.request, due)?;
            outcome.lag.record(nanoseconds(now - could))?;
            sent += 1;
        }
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), Some(&patience))?;
        ensure!(!events.is_empty(), "no answer for {PATIENCE:?}");
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
                answered += 1;
                free.push_back(index);
            }
        }
    }
    outcome.took = start.elapsed();
    Ok(outcome)
}

fn wake(timer: &OwnedFd, after: Duration) -> Result<()> {
    // A timer of zero is off; what is due within a microsecond can wait for it.
    let after = after.max(Duration::from_micros(1));
    let never = Timespec { tv_sec: 0, tv_nsec: 0 };
    let once = Itimerspec { it_interval: never, it_value: Timespec::try_from(after)? };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
    Ok(())
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let now = Instant::now();
        Ok(Self { stream, due: now, free_since: now, buffer: vec![0; 16 << 10], filled: 0 })
    }

    fn send(&mut self, request: &[u8], due: Instant) -> Result<()> {
        self.due = due;
        // Nothing else is in its send buffer, so that a small request always fits.
        self.stream.write_all(request).context("cannot send")
    }

    /// Reads what is there; whether it was the last of an answer.
    fn receive(&mut self) -> Result<bool> {
        match self.stream.read(&mut self.buffer[self.filled..]) {
            Ok(0) => anyhow::bail!("the server closed a connection, or its answer is too long"),
            Ok(read) => self.filled += read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let Some(answer) = Answer::parse(&self.buffer[..self.filled])? else { return Ok(false) };
        let Answer { status, body, .. } = answer;
        ensure!(status == 200, "answered {status}: {}", String::from_utf8_lossy(&body));
        self.filled = 0;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server that answers the first request after a stall and the others at once: everyone
    /// who was due during the stall has waited, on however few connections.
    #[test]
    fn who_is_kept_waiting_is_counted() {
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
        let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        // One each millisecond.
        let load = Load { request, rate: 1000.0, requests: 150, connections: 1 };
        let outcome = run(address, load).unwrap();
        assert_eq!((outcome.latency.len(), outcome.lag.len()), (150, 150));
        // All of them were due before the stall ended, the last one 51 ms before.
        assert!(outcome.latency.min() >= nanoseconds(Duration::from_millis(50)));
        assert!(outcome.latency.max() >= nanoseconds(STALL));
        assert!(outcome.took >= STALL);
    }
}
