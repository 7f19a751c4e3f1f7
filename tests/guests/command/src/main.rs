//! Test guest: a command that reads a request as CGI does, and prints the response.

use std::io::{Read, Write};

fn main() -> std::io::Result<()> {
    let mut body = String::new();
    std::io::stdin().read_to_string(&mut body)?;
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let mut out = std::io::stdout();
    match variable("PATH_INFO").as_str() {
        "/silent" => {}
        "/exit" => {
            write!(out, "Status: 202 Accepted\nContent-Type: text/plain\n\nexited")?;
            out.flush()?;
            std::process::exit(0);
        }
        "/fail" => std::process::exit(3),
        "/loop" => loop {
            std::hint::spin_loop();
        },
        "/large" => {
            write!(out, "Content-Type: text/plain\n\n")?;
            let line = [b'x'; 1 << 16];
            for _ in 0..512 {
                out.write_all(&line)?;
            }
        }
        "/redirect" => write!(out, "Location: /elsewhere\n\n")?,
        path => {
            let arguments: Vec<_> = std::env::args().collect();
            write!(
                out,
                "Content-Type: text/plain\nX-Arguments: {}\n\n{} {path} {} {} {body}",
                arguments.join(","),
                variable("REQUEST_METHOD"),
                variable("QUERY_STRING"),
                variable("GREETING"),
            )?;
        }
    }
    Ok(())
}
