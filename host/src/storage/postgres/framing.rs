//! The messages of a server, bounded: the library holds a message in memory before it looks at it, and a
//! message may have gigabytes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use super::MAX_MESSAGE;
use crate::process::memory_budget::{Charge, MemoryBudget};

/// Size of a message that is not charged, in bytes.
const SMALL: usize = 64 << 10;
/// The type of a message, and its length without the type.
const HEADER: usize = 5;
/// The reply of a server that accepts TLS.
const TLS_ACCEPTED: u8 = b'S';
/// The type of the message `ParameterStatus`: the library keeps its content.
const PARAMETER_STATUS: u8 = b'S';
/// Maximum number of bytes that the library itself collects, at login and for the definitions of
/// types.
const MAX_COLLECTED: usize = 1 << 20;

/// What the next bytes of a server are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// TLS records.
    Encrypted,
    /// The reply to a request for TLS, one byte.
    TlsReply,
    /// The header of a message, of which `filled` bytes have been read.
    Header { bytes: [u8; HEADER], filled: usize },
    /// What is left of a message, in bytes.
    Body(usize),
}

impl Framing {
    /// The start of a message.
    pub(super) const MESSAGES: Self = Self::Header { bytes: [0; HEADER], filled: 0 };
}

/// How many bytes a server may still send.
#[derive(Clone, Debug)]
pub(super) struct Allowance(Arc<AtomicUsize>);

impl Allowance {
    /// The allowance of a login.
    pub(super) fn of_login() -> Self {
        Self(Arc::new(AtomicUsize::new(MAX_COLLECTED)))
    }

    /// Bounds what the library collects.
    pub(super) fn bound(&self) {
        self.0.store(MAX_COLLECTED, Ordering::Relaxed);
    }

    /// Allows any number: the caller bounds what it collects.
    pub(super) fn unbound(&self) {
        self.0.store(usize::MAX, Ordering::Relaxed);
    }

    fn spend(&self, bytes: usize) -> io::Result<()> {
        match self.0.load(Ordering::Relaxed) {
            usize::MAX => Ok(()),
            left => {
                let left = left.checked_sub(bytes).ok_or_else(|| {
                    io::Error::other(format!(
                        "the server sends more than {MAX_COLLECTED} bytes at login or to define a type"
                    ))
                })?;
                self.0.store(left, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}

/// A stream whose messages are limited in size. A large one is charged until the next one starts.
#[derive(Debug)]
pub(super) struct BoundedMessages<S> {
    stream: S,
    framing: Framing,
    allowance: Allowance,
    memory: MemoryBudget,
    /// For the present message.
    charge: Charge,
    /// For what the library keeps as long as the connection is open.
    kept: Charge,
}

impl<S> BoundedMessages<S> {
    pub(super) fn new(
        stream: S,
        framing: Framing,
        allowance: &Allowance,
        memory: &MemoryBudget,
    ) -> Self {
        let (charge, kept) = (memory.empty_charge(), memory.empty_charge());
        Self { stream, framing, allowance: allowance.clone(), memory: memory.clone(), charge, kept }
    }

    /// Follows the messages in `received`.
    fn follow(&mut self, mut received: &[u8]) -> io::Result<()> {
        while let [first, rest @ ..] = received {
            match &mut self.framing {
                Framing::Encrypted => return Ok(()),
                Framing::TlsReply => {
                    let accepted = *first == TLS_ACCEPTED;
                    self.framing = if accepted { Framing::Encrypted } else { Framing::MESSAGES };
                    received = rest;
                }
                Framing::Header { bytes, filled } => {
                    bytes[*filled] = *first;
                    *filled += 1;
                    received = rest;
                    self.allowance.spend(1)?;
                    if *filled == HEADER {
                        let [tag, length @ ..] = *bytes;
                        self.begin(tag, u32::from_be_bytes(length))?;
                    }
                }
                Framing::Body(left) => {
                    let count = received.len().min(*left);
                    *left -= count;
                    received = &received[count..];
                    self.allowance.spend(count)?;
                    if *left == 0 {
                        self.framing = Framing::MESSAGES;
                    }
                }
            }
        }
        Ok(())
    }

    /// Starts a message with a length as in its header, which counts itself.
    fn begin(&mut self, tag: u8, length: u32) -> io::Result<()> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MAX_MESSAGE {
            return Err(io::Error::other(format!(
                "the server sends a row or message of {length} bytes, and the limit is {MAX_MESSAGE}"
            )));
        }
        self.charge = self.memory.empty_charge();
        if tag == PARAMETER_STATUS {
            self.kept.grow(length).map_err(io::Error::other)?;
        } else if length > SMALL {
            self.charge.grow(length).map_err(io::Error::other)?;
        }
        self.framing = match length.saturating_sub(size_of::<u32>()) {
            0 => Framing::MESSAGES,
            left => Framing::Body(left),
        };
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BoundedMessages<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        Poll::Ready(self.follow(&buffer.filled()[before..]))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BoundedMessages<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: TlsStream + Unpin> TlsStream for BoundedMessages<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.channel_binding()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bounded(framing: Framing) -> BoundedMessages<()> {
        let allowance = Allowance::of_login();
        allowance.unbound();
        BoundedMessages::new((), framing, &allowance, &MemoryBudget::new(1 << 20, "limit"))
    }

    fn header(tag: u8, length: u32) -> Vec<u8> {
        [&[tag][..], &length.to_be_bytes()].concat()
    }

    #[test]
    fn large_message_is_charged_until_the_next_and_a_larger_one_is_refused() {
        let mut stream = bounded(Framing::MESSAGES);
        stream.follow(&header(b'D', 1 << 19)).unwrap();
        assert_eq!(stream.memory.used(), 1 << 19);
        stream.follow(&vec![0; (1 << 19) - 4]).unwrap();
        assert_eq!(stream.memory.used(), 1 << 19, "the library still holds it");
        stream.follow(&header(b'C', 4)).unwrap();
        assert_eq!((stream.memory.used(), stream.framing), (0, Framing::MESSAGES));
        let over_budget = stream.follow(&header(b'D', 1 << 21)).unwrap_err();
        assert!(over_budget.to_string().contains("limit"), "{over_budget}");
        for length in [u32::MAX, u32::try_from(MAX_MESSAGE).unwrap() + 1] {
            let refused = bounded(Framing::MESSAGES).follow(&header(b'D', length)).unwrap_err();
            assert!(refused.to_string().contains("row or message"), "{refused}");
        }
    }

    #[test]
    fn what_the_library_collects_is_bounded() {
        let mut stream = bounded(Framing::MESSAGES);
        stream.follow(&[header(b'S', 104), vec![0; 100]].concat()).unwrap();
        stream.follow(&header(b'C', 4)).unwrap();
        assert_eq!(stream.memory.used(), 104, "settings are kept");
        let notice = [header(b'N', 1004), vec![0; 1000]].concat();
        stream.follow(&notice.repeat(MAX_COLLECTED / 1000)).unwrap();
        stream.allowance.bound();
        let refused = stream.follow(&notice.repeat(MAX_COLLECTED / 1000)).unwrap_err();
        assert!(refused.to_string().contains("at login or to define a type"), "{refused}");
    }

    #[test]
    fn encrypted_bytes_are_not_messages() {
        let mut stream = bounded(Framing::TlsReply);
        stream.follow(b"S\x16\xff\xff\xff\xff\xff").unwrap();
        assert_eq!(stream.framing, Framing::Encrypted);
        let mut stream = bounded(Framing::TlsReply);
        stream.follow(b"N").unwrap();
        assert!(stream.follow(&header(b'R', u32::MAX)).is_err());
    }

    proptest! {
        #[test]
        fn messages_are_followed_however_they_are_split(
            lengths in prop::collection::vec(0..200_u32, 1..20),
            splits in prop::collection::vec(1..60_usize, 1..50),
        ) {
            let mut bytes = Vec::new();
            for length in &lengths {
                bytes.extend(header(b'D', length + 4));
                bytes.extend(vec![0xff; usize::try_from(*length).unwrap()]);
            }
            let mut stream = bounded(Framing::MESSAGES);
            let (mut rest, mut splits) = (&bytes[..], splits.into_iter().cycle());
            while !rest.is_empty() {
                let (part, after) = rest.split_at(splits.next().unwrap().min(rest.len()));
                stream.follow(part).unwrap();
                rest = after;
            }
            prop_assert_eq!(stream.framing, Framing::MESSAGES);
        }
    }
}
