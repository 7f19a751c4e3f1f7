//! The fast door: `spinfer:serve/buffered-handler`, one call with the whole request.

use super::Doors;
use crate::bindings::exports::spinfer::serve::buffered_handler as wit;
use crate::handler::handle;
use crate::hooks::ModelHooks;
use crate::model::Model;
use crate::request::{Method, Request, RequestHeaders};

impl<M: Model> wit::Guest for Doors<M> {
    fn needed_headers() -> Vec<String> {
        ModelHooks::of::<M>().needed_headers().iter().map(|&name| name.to_owned()).collect()
    }

    fn handle(request: wit::Request) -> wit::Response {
        let response = handle::<M>(&Request {
            method: request.method.into(),
            path_with_query: request.path_with_query,
            headers: RequestHeaders::Passed {
                needed: request
                    .headers
                    .into_iter()
                    .map(|header| (header.index, header.value))
                    .collect(),
                prediction_id: None,
            },
            body: request.body,
        });
        wit::Response {
            status: response.status,
            headers: response
                .headers
                .into_iter()
                .map(|(name, value)| wit::ResponseHeader {
                    name: name.to_owned(),
                    value: value.into_owned().into_bytes(),
                })
                .collect(),
            body: response.body,
        }
    }
}

impl From<wit::Method> for Method {
    fn from(method: wit::Method) -> Self {
        match method {
            wit::Method::Get => Self::Get,
            wit::Method::Head => Self::Head,
            wit::Method::Post => Self::Post,
            wit::Method::Put
            | wit::Method::Delete
            | wit::Method::Connect
            | wit::Method::Options
            | wit::Method::Trace
            | wit::Method::Patch
            | wit::Method::Other(_) => Self::Other,
        }
    }
}
