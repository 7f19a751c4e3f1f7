//! A Redis that is as it should be but for what it says to look-ups: it costs an answer its time.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use spinfer_benches::process::Process;
use spinfer_tests::{Launch, Manifest, Response, Spinfer, wait_until};

use super::redis::{LIES, Lie, tell};

/// MiB over what it took before: two answers of 64 MiB in buffers that grow.
const MAX_MEMORY: f64 = 500.0;

/// A server that tells the truth until it is asked to `GET`.
fn lying(lie: Lie) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // An error is the client's end.
            thread::spawn(move || serve(stream, lie));
        }
    });
    address
}

fn serve(mut stream: TcpStream, lie: Lie) -> std::io::Result<()> {
    let mut commands = BufReader::new(stream.try_clone()?);
    loop {
        let command = read(&mut commands)?;
        let response = match command[0].as_str() {
            "HELLO" => "%3\r\n+server\r\n+redis\r\n+version\r\n+7.0.0\r\n+proto\r\n:3\r\n".into(),
            "EXISTS" => ":0\r\n".into(),
            "HSET" => ":1\r\n".into(),
            "HMGET" => format!("*{}\r\n{}", command.len() - 2, "_\r\n".repeat(command.len() - 2)),
            "GET" => {
                tell(&mut stream, lie)?;
                if matches!(lie, Lie::Goodbye | Lie::Large) {
                    return Ok(());
                }
                continue;
            }
            _ => "+OK\r\n".into(),
        };
        stream.write_all(response.as_bytes())?;
    }
}

/// A command and its arguments, as clients send them: a list of texts.
fn read(from: &mut impl BufRead) -> std::io::Result<Vec<String>> {
    let number = |from: &mut dyn BufRead| -> std::io::Result<usize> {
        let mut line = String::new();
        from.read_line(&mut line)?;
        line.get(1..).and_then(|n| n.trim().parse().ok()).ok_or(std::io::ErrorKind::Other.into())
    };
    let count = number(from)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let mut word = vec![0; number(from)? + 2];
        from.read_exact(&mut word)?;
        words.push(String::from_utf8_lossy(&word[..word.len() - 2]).into_owned());
    }
    Ok(words)
}

fn is_hit(response: &Response) -> bool {
    assert_eq!(response.status, 200, "{response:?}");
    response.header("cache-status").is_some_and(|status| status.starts_with("spinfer; hit"))
}

/// Look-ups that came to nothing so far.
fn in_vain(spinfer: &Spinfer) -> u64 {
    let metrics = spinfer.admin().send("GET", "/metrics", &[], b"").text();
    let of = |result: &str| -> u64 {
        let name = format!("spinfer_cache_redis_lookups_total{{result=\"{result}\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&*name));
        value.unwrap_or_else(|| panic!("no {name}in {metrics}")).parse().unwrap()
    };
    of("failed") + of("foreign")
}

#[test]
fn faulty_redis_lookups_time_out_and_responses_are_computed() {
    for lie in LIES {
        let manifest = Manifest::default().with("/...", "probe", "probe", "");
        let config = format!("[cache]\nredis = 'redis://{}'\ntimeout = '100ms'\n", lying(lie));
        let spinfer = Launch::new(&manifest).admin().runtime_config(&config).up();
        spinfer.wait_for_log("the Redis answers");
        // From its first answer that is to be kept it is known that there are some.
        assert!(!is_hit(&spinfer.post("/cache/first?max-age=60", "")));
        let process = Process(spinfer.id());
        let before = process.resident().unwrap().total();
        let mut asked = 0;
        wait_until("it has lied three times", || {
            let path = format!("/cache/{asked}?max-age=60");
            asked += 1;
            let made = spinfer.post(&path, "");
            assert!(!is_hit(&made), "{lie:?}: {made:?}");
            let again = spinfer.post(&path, "");
            assert!(is_hit(&again) && again.body == made.body, "{lie:?}: {again:?}");
            in_vain(&spinfer) >= 3
        });
        let most = process.peak().unwrap() - before;
        let _ = writeln!(std::io::stderr(), "{lie:?}: {asked} asked, {most:.1} MiB more");
        assert!(most <= MAX_MEMORY, "{lie:?}: {most} MiB");
    }
}
