//! A minimal HTTP/1.1 client: encoded requests, incremental parsing of responses, one connection.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use httparse::Status;

use crate::application::Operation;

/// Timeout of a response.
const TIMEOUT: Duration = Duration::from_secs(120);

/// An encoded request to the model at `route`.
#[must_use]
pub fn post(route: &str, operation: Operation<'_>) -> Vec<u8> {
    let Operation { name, body } = operation;
    let length = body.len();
    format!(
        "POST {route}/{name} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// An encoded request for an inference on `body`, with more headers.
#[must_use]
pub fn infer(route: &str, headers: &[(&str, String)], body: &[u8]) -> Vec<u8> {
    let headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let head = format!(
        "POST {route}/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// An encoded GET request for `path`.
#[must_use]
pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes()
}

/// A response in the buffer that it was read into.
#[derive(Debug)]
pub struct Response<'a> {
    pub status: u16,
    /// Whether it was served from the response cache.
    pub hit: bool,
    pub body: Cow<'a, [u8]>,
}

impl<'a> Response<'a> {
    /// Parses a response; `None` if it is incomplete.
    ///
    /// # Errors
    /// If `bytes` are not a response, or more than one.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<Self>> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut headers);
        let Status::Complete(start) = head.parse(bytes)? else { return Ok(None) };
        let (status, rest) = (head.code.unwrap_or(0), &bytes[start..]);
        let header = |name: &str| {
            head.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
        };
        let hit = header("cache-status").is_some_and(|status| status.starts_with(b"spinfer; hit"));
        let Some(length) = header("content-length") else {
            ensure!(header("transfer-encoding") == Some(b"chunked"), "the response has no length");
            return Ok(chunks(rest)?.map(|body| Self { status, hit, body: Cow::Owned(body) }));
        };
        let length: usize = std::str::from_utf8(length)?.parse()?;
        ensure!(rest.len() <= length, "bytes follow the response");
        Ok((rest.len() == length).then_some(Self { status, hit, body: Cow::Borrowed(rest) }))
    }
}

fn chunks(mut bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    const END: &[u8] = b"\r\n";
    let mut body = Vec::new();
    loop {
        let size = httparse::parse_chunk_size(bytes).map_err(|_| anyhow!("invalid chunk size"))?;
        let Status::Complete((at, size)) = size else { return Ok(None) };
        let size = usize::try_from(size)?;
        let Some((chunk, rest)) = bytes[at..].split_at_checked(size) else { return Ok(None) };
        let Some(rest) = rest.strip_prefix(END) else { return Ok(None) };
        body.extend_from_slice(chunk);
        if size == 0 {
            ensure!(rest.is_empty(), "bytes follow the response");
            return Ok(Some(body));
        }
        bytes = rest;
    }
}

/// A keep-alive connection that sends one request after the other.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A response, and the time to its first byte.
#[derive(Debug)]
pub struct Timed {
    /// Time from the request to the first byte.
    pub first_byte: Duration,
    pub status: u16,
    /// Whether it was served from the response cache.
    pub hit: bool,
    pub body: String,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// If the server does not accept the connection.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self { stream, buffer: vec![0; 64 << 10] })
    }

    /// Sends a request and waits for its response.
    ///
    /// # Errors
    /// If the connection breaks, or the response is not valid or does not arrive in time.
    pub fn send(&mut self, request: &[u8]) -> Result<Timed> {
        let start = Instant::now();
        self.stream.write_all(request)?;
        let (mut filled, mut first_byte) = (0, Duration::ZERO);
        loop {
            if filled == self.buffer.len() {
                self.buffer.resize(filled * 2, 0);
            }
            let read = self.stream.read(&mut self.buffer[filled..])?;
            ensure!(read > 0, "the server closed the connection");
            if filled == 0 {
                first_byte = start.elapsed();
            }
            filled += read;
            if let Some(Response { status, hit, body }) = Response::parse(&self.buffer[..filled])? {
                let body = String::from_utf8_lossy(&body).into_owned();
                return Ok(Timed { first_byte, status, hit, body });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asserts that every prefix of `text` is incomplete.
    fn check(text: &str, status: u16, body: &str) {
        for end in 0..text.len() {
            assert!(Response::parse(&text.as_bytes()[..end]).unwrap().is_none(), "{end} of {text}");
        }
        let response = Response::parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!((response.status, &*response.body), (status, body.as_bytes()));
        assert!(Response::parse(format!("{text}x").as_bytes()).is_err(), "bytes follow");
    }

    #[test]
    fn a_response_is_parsed_once_it_is_complete() {
        check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole", 200, "whole");
        check("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", 503, "");
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                       3\r\npar\r\n2\r\nts\r\n0\r\n\r\n";
        check(chunked, 200, "parts");
    }
}
