//! A router of version 0.1.0: the header `x-variant` names the variant and its component, `one` or `two`. Without
//! it the request is refused.

mod bindings {
    #![expect(unsafe_code, reason = "generated")]
    #![expect(clippy::mem_forget, reason = "generated")]

    wit_bindgen::generate!({ path: "../../../wit/spinfer-experiment-0.1", world: "router" });

    export!(Router);

    pub(crate) struct Router;
}

use bindings::Router;
use bindings::exports::spinfer::experiment::assignment::{Assigned, Guest, Refusal, Request};

impl Guest for Router {
    fn needed_headers() -> Vec<String> {
        vec!["x-variant".into()]
    }

    fn needs_body() -> bool {
        false
    }

    fn assign(request: Request) -> Result<Assigned, Refusal> {
        let variant = request.headers.into_iter().find_map(|h| String::from_utf8(h.value).ok());
        let variant = variant
            .ok_or_else(|| Refusal { status: 422, message: "no header x-variant".into() })?;
        Ok(Assigned {
            experiment: "older".into(),
            component: variant.clone(),
            variant,
            path_with_query: None,
            shadows: Vec::new(),
        })
    }
}
