//! A Redis that replies with what no Redis does.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// Length of the string of [`RedisFault::LargeString`], in bytes.
pub const LARGE_STRING: usize = 33_000_000;
/// Time between two bytes of [`RedisFault::Trickle`], shorter than any timeout of a command.
const TRICKLE_PAUSE: Duration = Duration::from_millis(100);
/// Size of one write of an endless reply, in bytes.
const WRITE: usize = 65_536;

/// How a [`FaultyRedis`] replies to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisFault {
    /// Not at all.
    Silence,
    /// With a string, a byte at a time.
    Trickle,
    /// By closing the connection.
    Close,
    /// With bytes that are not RESP.
    Garbage,
    /// With replies without end.
    Flood,
    /// With an array of very many integers, and more of them than it announces.
    ManyIntegers,
    /// With an array of very many arrays, and more of them than it announces.
    ManyArrays,
    /// With a string of 2 GB, and more than that.
    LongString,
    /// With a line without end.
    LongLine,
    /// With a string of [`LARGE_STRING`], close to the maximum of a reply; then it closes the connection.
    LargeString,
    /// With these bytes.
    Bytes(&'static [u8]),
}

impl RedisFault {
    /// All but [`RedisFault::Bytes`].
    pub const ALL: [Self; 10] = [
        Self::Silence,
        Self::Trickle,
        Self::Close,
        Self::Garbage,
        Self::Flood,
        Self::ManyIntegers,
        Self::ManyArrays,
        Self::LongString,
        Self::LongLine,
        Self::LargeString,
    ];

    /// Replies; whether the connection stays open.
    fn reply(self, stream: &mut TcpStream) -> Result<bool> {
        match self {
            Self::Silence => {}
            Self::Close => return Ok(false),
            Self::Trickle => {
                stream.write_all(b"$100000\r\n")?;
                loop {
                    thread::sleep(TRICKLE_PAUSE);
                    stream.write_all(b"a")?;
                }
            }
            Self::Garbage => stream.write_all(b"\0\xff HTTP/1.1 400 Bad Request\r\n\r\n")?,
            Self::Flood => endless(stream, b"", b"+a\r\n")?,
            Self::ManyIntegers => endless(stream, b"*100000000\r\n", b":1\r\n")?,
            Self::ManyArrays => endless(stream, b"*300000\r\n", b"*100\r\n")?,
            Self::LongString => endless(stream, b"$2000000000\r\n", b"a")?,
            Self::LongLine => endless(stream, b"+", b"a")?,
            Self::LargeString => {
                stream.write_all(format!("${LARGE_STRING}\r\n").as_bytes())?;
                stream.write_all(&vec![b'a'; LARGE_STRING])?;
                stream.write_all(b"\r\n")?;
                return Ok(false);
            }
            Self::Bytes(bytes) => stream.write_all(bytes)?,
        }
        Ok(true)
    }
}

/// Writes `start`, and then `part` until the client closes the connection.
fn endless(stream: &mut TcpStream, start: &[u8], part: &[u8]) -> Result<()> {
    stream.write_all(start)?;
    let parts = part.repeat(WRITE / part.len());
    loop {
        stream.write_all(&parts)?;
    }
}

/// The requests that get the fault as reply. The others get the reply of an empty Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultScope {
    /// Everything that it receives.
    Everything,
    /// Every command after the greeting of a connection.
    Commands,
    /// `GET`.
    Get,
}

/// A server on a free port, until the process of the test exits.
#[derive(Clone, Copy, Debug)]
pub struct FaultyRedis {
    address: SocketAddr,
}

impl FaultyRedis {
    #[must_use]
    pub fn start(fault: RedisFault, scope: FaultScope) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a free port");
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // An error is a connection that the client closed.
                thread::spawn(move || match scope {
                    FaultScope::Everything => reply_to_everything(stream, fault),
                    FaultScope::Commands | FaultScope::Get => serve(stream, fault, scope),
                });
            }
        });
        Self { address }
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }
}

fn reply_to_everything(mut stream: TcpStream, fault: RedisFault) -> Result<()> {
    let mut received = [0; 4096];
    while stream.read(&mut received)? > 0 {
        if !fault.reply(&mut stream)? {
            break;
        }
    }
    Ok(())
}

fn serve(mut stream: TcpStream, fault: RedisFault, scope: FaultScope) -> Result<()> {
    let mut commands = BufReader::new(stream.try_clone()?);
    loop {
        let command = read_command(&mut commands)?;
        let is_faulty = match (scope, command[0].as_str()) {
            (FaultScope::Get, name) => name == "GET",
            (_, name) => !["HELLO", "CLIENT"].contains(&name),
        };
        if is_faulty {
            if !fault.reply(&mut stream)? {
                return Ok(());
            }
            continue;
        }
        let reply = match command[0].as_str() {
            "HELLO" => "%3\r\n+server\r\n+redis\r\n+version\r\n+7.0.0\r\n+proto\r\n:3\r\n".into(),
            "EXISTS" => ":0\r\n".into(),
            "HSET" => ":1\r\n".into(),
            "HMGET" => format!("*{}\r\n{}", command.len() - 2, "_\r\n".repeat(command.len() - 2)),
            _ => "+OK\r\n".into(),
        };
        stream.write_all(reply.as_bytes())?;
    }
}

/// A command and its arguments, which clients send as an array of strings.
fn read_command(from: &mut impl BufRead) -> Result<Vec<String>> {
    let number = |from: &mut dyn BufRead| -> Result<usize> {
        let mut line = String::new();
        from.read_line(&mut line)?;
        line.get(1..).and_then(|n| n.trim().parse().ok()).ok_or(Error::from(ErrorKind::InvalidData))
    };
    let mut words = Vec::new();
    for _ in 0..number(from)? {
        let mut word = vec![0; number(from)? + 2];
        from.read_exact(&mut word)?;
        words.push(String::from_utf8_lossy(&word[..word.len() - 2]).into_owned());
    }
    Ok(words)
}
