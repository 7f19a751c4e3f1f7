//! Does harm, by the path. Harm by streams and tasks is behind the standard door only (`concurrent`), the rest
//! behind both doors.

#![expect(clippy::print_stdout, reason = "floods the log")]

mod concurrent;
mod log;
mod nn;
mod streams;

use std::hint::black_box;

use spin_sdk::wasip3::exports::http::handler::Guest;
use spin_sdk::wasip3::http::types;
use spin_sdk::wasip3::random::random as random3;
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{DescriptorFlags, OpenFlags, PathFlags};
use wasip2::random::random as random2;

mod bindings {
    #![expect(unsafe_code, reason = "generated")]
    #![expect(clippy::mem_forget, reason = "generated")]

    wit_bindgen::generate!({
        path: [
            "../../../wit/wasi-nn",
            "../../../wit/spinfer-prediction-log",
            "../../../wit/spinfer-serve",
        ],
        inline: "
            package spinfer:hostile;
            world hostile {
                import wasi:nn/tensor@0.2.0-rc-2024-10-28;
                import wasi:nn/graph@0.2.0-rc-2024-10-28;
                import wasi:nn/inference@0.2.0-rc-2024-10-28;
                import wasi:nn/errors@0.2.0-rc-2024-10-28;
                import spinfer:prediction-log/log@0.1.0;
                export spinfer:serve/buffered-handler@0.1.0;
            }
        ",
        world: "spinfer:hostile/hostile",
        generate_all,
    });

    export!(Hostile);

    pub(crate) struct Hostile;
}

use bindings::Hostile;
use bindings::exports::spinfer::serve::buffered_handler as fast;

spin_sdk::wasip3::http::service::export!(Hostile);

/// Does harm, and returns the response if it was not stopped.
fn harm(path: &str, query: &str) -> String {
    let number = || query.parse().unwrap_or(0);
    match path {
        "/echo" => query.to_owned(),
        "/stack" => deeper(0).to_string(),
        // The number of lines in the query, or without end.
        "/print" if query.is_empty() => loop {
            println!("{}", "x".repeat(1000));
        },
        "/print" => {
            (0..number()).for_each(|n: u64| println!("line {n} of {query}"));
            "printed".into()
        }
        // One line without end.
        "/print-line" => loop {
            print!("{}", "x".repeat(1000));
        },
        "/handles" => {
            let mut resources = Vec::new();
            loop {
                resources.push(types::Fields::new());
            }
        }
        "/fields" => {
            let fields = types::Fields::new();
            let refused = (0..).find_map(|n| fields.append(&format!("x-{n}"), b"value").err());
            format!("{refused:?}")
        }
        "/random-0.2" => random2::get_random_bytes(u64::MAX).len().to_string(),
        "/random-0.3" => random3::get_random_bytes(u64::MAX).len().to_string(),
        "/read" => read_all().unwrap_or_else(|error| format!("{error:?}")),
        "/body" => "x".repeat(number().try_into().unwrap_or_default()),
        "/nn/forged" => nn::forged(query),
        "/nn/sequence" => nn::sequence(number()),
        "/log/one" => log::one(query),
        "/log/one-and-trap" => {
            black_box(log::one(query));
            std::process::abort()
        }
        "/log/nonsense" => log::nonsense(),
        "/log/flood" => log::flood(number()),
        "/log/aliased" => log::aliased(),
        _ => "no such harm".into(),
    }
}

#[expect(unconditional_recursion, reason = "overflows the stack")]
fn deeper(depth: u64) -> u64 {
    black_box(deeper(black_box(depth) + 1)) + 1
}

/// Reads the first file of the first mount with the greatest length and offset.
fn read_all() -> Result<String, wasip2::filesystem::types::ErrorCode> {
    let directories = get_directories();
    let (directory, _) =
        directories.first().ok_or(wasip2::filesystem::types::ErrorCode::NoEntry)?;
    let entry = directory.read_directory()?.read_directory_entry()?;
    let name = entry.map(|entry| entry.name).unwrap_or_default();
    let (path, open) = (PathFlags::empty(), OpenFlags::empty());
    let file = directory.open_at(path, &name, open, DescriptorFlags::READ)?;
    let (bytes, _) = file.read(u64::MAX, 0)?;
    let (none, _) = file.read(u64::MAX, u64::MAX - 1)?;
    let stream = file.read_via_stream(0)?;
    let streamed = stream.blocking_read(u64::MAX).map_or(0, |bytes| bytes.len());
    Ok(format!("{} {} {streamed}", bytes.len(), none.len()))
}

impl fast::Guest for Hostile {
    fn needed_headers() -> Vec<String> {
        Vec::new()
    }

    fn handle(request: fast::Request) -> fast::Response {
        let (path, query) = split(&request.path_with_query);
        fast::Response { status: 200, headers: Vec::new(), body: harm(path, query).into_bytes() }
    }
}

impl Guest for Hostile {
    async fn handle(request: types::Request) -> Result<types::Response, types::ErrorCode> {
        let path_with_query = request.get_path_with_query().unwrap_or_default();
        let (path, query) = split(&path_with_query);
        if let Some(response) = streams::respond(path, query, request).await {
            return response;
        }
        match concurrent::harm(path, query).await {
            Some(response) => Ok(response),
            None => Ok(concurrent::respond(harm(path, query).into_bytes())),
        }
    }
}

/// The path after its first segment, which is the route's, and the query.
fn split(path_with_query: &str) -> (&str, &str) {
    let (path, query) = path_with_query.split_once('?').unwrap_or((path_with_query, ""));
    let route = path.get(1..).and_then(|path| path.find('/')).map_or(path.len(), |end| end + 1);
    (&path[route..], query)
}
