//! Calls each interface of Spin that needs a grant, and responds with a line per call: the name of the interface, and
//! its error.

use bytes::Bytes;
use http_body_util::Full;
use spin_sdk::http::{Request, Response};
use spin_sdk::{http_service, key_value, llm, mqtt, mysql, pg, redis, sqlite};

mod older {
    wit_bindgen::generate!({ path: "wit", world: "ungranted", generate_all });
}

use older::fermyon::spin as v1;
use older::fermyon::spin2_0_0 as v2;

#[http_service]
async fn handle(_: Request) -> Result<Response<Full<Bytes>>, spin_sdk::http::Error> {
    let address = "mysql://user:secret@db.example.com/shop";
    let broker = "mqtt://example.com:1883";
    let results = [
        ("spin:key-value", shown(key_value::Store::open("default").await)),
        ("spin:redis", shown(redis::Connection::open("redis://example.com").await)),
        ("spin:mqtt", shown(mqtt::Connection::open(broker, "", "", 30).await)),
        ("spin:mysql", shown(mysql::Connection::open(address).await)),
        ("spin:postgres", shown(pg::Connection::open(address).await)),
        ("spin:sqlite", shown(sqlite::Connection::open_default().await)),
        ("fermyon:spin/llm", shown(llm::infer(llm::InferencingModel::Llama2Chat, "Hello"))),
        ("fermyon:spin/mqtt", shown(v2::mqtt::Connection::open(broker, "", "", 30))),
        ("fermyon:spin/mysql", shown(v2::mysql::Connection::open(address))),
        ("fermyon:spin/postgres", shown(v2::postgres::Connection::open(address))),
        ("fermyon:spin/sqlite", shown(v2::sqlite::Connection::open("default"))),
        ("fermyon:spin/sqlite of Spin 1", shown(v1::sqlite::open("default"))),
    ];
    // Returns nothing that could be an error.
    v1::sqlite::close(7);
    let lines: String = results.map(|(name, error)| format!("{name}: {error}\n")).concat();
    Ok(Response::new(Full::new(lines.into())))
}

fn shown<T, E: std::fmt::Debug>(result: Result<T, E>) -> String {
    result.map_or_else(|error| format!("{error:?}"), |_| "opened".into())
}
