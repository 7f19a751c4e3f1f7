//! A handler of `fermyon:spin/inbound-http`, as in components of TinyGo's SDK, with the interfaces of Spin 1. It responds
//! with the request: method, URI, `x-sent`, `spin-path-info` and body. `/config/<name>`, `/key-value`, `/redis`, `/postgres`
//! and `/fetch` use the interface; the body of a request to the last three is the address. `/status/<status>` responds with that status.

mod bindings {
    #![expect(unsafe_code, reason = "generated")]
    #![expect(clippy::mem_forget, reason = "generated")]

    wit_bindgen::generate!({
        path: "../../../wit/fermyon-spin-1",
        inline: "
            package spinfer:hello;
            world hello {
                import fermyon:spin/config;
                import fermyon:spin/http;
                import fermyon:spin/key-value;
                import fermyon:spin/postgres;
                import fermyon:spin/redis;
                export fermyon:spin/inbound-http;
            }
        ",
        world: "spinfer:hello/hello",
        generate_all,
    });

    export!(Hello);

    pub(crate) struct Hello;
}

use bindings::exports::fermyon::spin::inbound_http::{Guest, Request, Response};
use bindings::fermyon::spin::http_types::Method;
use bindings::fermyon::spin::rdbms_types::{DbValue, ParameterValue};
use bindings::fermyon::spin::redis_types::{RedisParameter, RedisResult};
use bindings::fermyon::spin::{config, http, key_value, postgres, redis};

impl Guest for bindings::Hello {
    fn handle_request(request: Request) -> Response {
        let body = text(&request.body.clone().unwrap_or_default());
        let uri = request.uri.as_str();
        let (mut status, mut response) = (200, None);
        if let Some(name) = uri.strip_prefix("/config/") {
            response = Some(format!("{:?}", config::get_config(name)));
        } else if let Some(wanted) = uri.strip_prefix("/status/") {
            status = wanted.parse().unwrap_or(200);
        } else if uri == "/key-value" {
            response = Some(match store() {
                Ok(text) => text,
                Err(error) => format!("{error:?}"),
            });
        } else if uri == "/redis" {
            response = Some(run_redis(&body).unwrap_or_else(|error| format!("{error:?}")));
        } else if uri == "/postgres" {
            response = Some(run_postgres(&body).unwrap_or_else(|error| format!("{error:?}")));
        } else if uri == "/fetch" {
            response = Some(match http::send_request(&outgoing(body.clone())) {
                Ok(response) => {
                    format!("{}: {}", response.status, text(&response.body.unwrap_or_default()))
                }
                Err(error) => format!("{error:?}"),
            });
        }
        let text = response.unwrap_or_else(|| {
            let header = |name: &str| {
                let found = request.headers.iter().find(|(known, _)| known == name);
                found.map_or("none", |(_, value)| value.as_str()).to_owned()
            };
            let (method, sent, path) = (request.method, header("x-sent"), header("spin-path-info"));
            format!("{method:?} {uri} {sent} {path} {} {body}", request.params.len())
        });
        let headers = vec![("content-type".to_owned(), "text/plain".to_owned())];
        Response { status, headers: Some(headers), body: Some(text.into_bytes()) }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn outgoing(uri: String) -> http::Request {
    let headers = vec![("x-sent".to_owned(), "relayed".to_owned())];
    http::Request {
        method: Method::Post,
        uri,
        headers,
        params: Vec::new(),
        body: Some(b"inner".to_vec()),
    }
}

/// A line for each operation on the default store, and on numbers that are no store.
fn store() -> Result<String, key_value::Error> {
    let store = key_value::open("default")?;
    key_value::set(store, "a", b"1")?;
    let lines = [
        format!("{:?}", key_value::get(store, "a").map(|value| text(&value))),
        format!("{:?}", key_value::get(store, "b").map(|value| text(&value))),
        format!("{:?} {:?}", key_value::exists(store, "a"), key_value::get_keys(store)),
        format!("{:?} {:?}", key_value::delete(store, "a"), key_value::exists(store, "a")),
        format!("{:?}", key_value::open("other")),
        format!("{:?}", key_value::exists(store + 1000, "a")),
    ];
    key_value::close(store);
    key_value::close(store);
    Ok(format!("{}\n{:?}", lines.join("\n"), key_value::exists(store, "a")))
}

fn run_postgres(address: &str) -> Result<String, postgres::PgError> {
    let execute = |sql: &str| postgres::execute(address, sql, &[]);
    execute("CREATE TABLE IF NOT EXISTS spin_1 (a int8)")?;
    let parameters = [ParameterValue::Uint32(u32::MAX)];
    let inserted = postgres::execute(address, "INSERT INTO spin_1 VALUES ($1)", &parameters)?;
    let result = postgres::query(address, "SELECT a FROM spin_1", &[])?;
    let found =
        matches!(result.rows[..], [ref row] if matches!(row[..], [DbValue::Int64(4_294_967_295)]));
    execute("DROP TABLE spin_1")?;
    let Err(error) = execute("DROP TABLE spin_1") else { panic!("the table is dropped twice") };
    Ok(format!("{inserted} {} {found} {error:?}", result.columns[0].name))
}

fn run_redis(address: &str) -> Result<String, redis::Error> {
    redis::set(address, "spin-1", b"7")?;
    let sum = redis::incr(address, "spin-1")?;
    let (value, absent) = (redis::get(address, "spin-1")?, redis::get(address, "spin-1-absent")?);
    let added = redis::sadd(address, "spin-1-set", &["a".into(), "b".into()])?;
    let removed = redis::srem(address, "spin-1-set", &["a".into()])?;
    let members = redis::smembers(address, "spin-1-set")?;
    redis::publish(address, "spin-1", b"message")?;
    let arguments = [RedisParameter::Binary(b"spin-1".to_vec()), RedisParameter::Int64(3)];
    let reply = redis::execute(address, "incrby", &arguments)?;
    let reply = matches!(reply[..], [RedisResult::Int64(11)]);
    let deleted = redis::del(address, &["spin-1".into(), "spin-1-set".into()])?;
    Ok(format!(
        "{sum} {} {} {added} {removed} {members:?} {reply} {deleted}",
        text(&value),
        absent.len()
    ))
}
