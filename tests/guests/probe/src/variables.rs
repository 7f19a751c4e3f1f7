//! The component's variables, through each interface that has them. Responses are a status and a text.

use crate::bindings::fermyon::spin::variables as fermyon;
use crate::bindings::wasi::config::store;

/// `spin:variables`.
pub(crate) async fn spin(name: &str) -> (u16, String) {
    match spin_sdk::variables::get(name).await {
        Ok(value) => (200, value),
        Err(error) => (404, format!("{error:?}")),
    }
}

/// `/variable/fermyon?<name>`, `/variable/config?<name>`, `/variable/all`.
pub(crate) fn respond(path: &str, query: &str) -> (u16, String) {
    let value = match path {
        "/variable/fermyon" => fermyon::get(query).map_err(|error| format!("{error:?}")),
        "/variable/config" => store::get(query)
            .map_err(|error| format!("{error:?}"))
            .and_then(|value| value.ok_or_else(|| "none".to_owned())),
        "/variable/all" => {
            let all = store::get_all().map_err(|error| format!("{error:?}"));
            all.map(|all| {
                all.into_iter().map(|(name, value)| format!("{name}={value}\n")).collect()
            })
        }
        _ => Err(format!("{path}: no such interface")),
    };
    match value {
        Ok(value) => (200, value),
        Err(problem) => (404, problem),
    }
}
