//! `wasi:http` and `wasi:io` of the release candidate of 2023-10-18, which components of spin-sdk 2 for
//! Rust import. wasmtime's implementation of WASI 0.2 does the work, on the same resources.

mod http;
mod io;

use wasmtime::Result;
use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime_wasi::WasiView;
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

use crate::guest::instance::InstanceState;

mod generated {
    use wasmtime_wasi::p2 as latest;
    use wasmtime_wasi_http::p2::bindings::http::types as latest_http;

    wasmtime::component::bindgen!({
        path: "../wit/wasi-http-2023-10-18",
        inline: "
            package spinfer:host;
            world http {
                import wasi:io/poll@0.2.0-rc-2023-10-18;
                import wasi:io/streams@0.2.0-rc-2023-10-18;
                import wasi:http/types@0.2.0-rc-2023-10-18;
                import wasi:http/outgoing-handler@0.2.0-rc-2023-10-18;
            }
        ",
        world: "spinfer:host/http",
        imports: {
            "wasi:io/poll.poll-list": async | trappable,
            "wasi:io/poll.poll-one": async | trappable,
            "wasi:io/streams.[drop]input-stream": async | trappable,
            "wasi:io/streams.[drop]output-stream": async | trappable,
            "wasi:io/streams.[method]input-stream.blocking-read": async | trappable,
            "wasi:io/streams.[method]input-stream.blocking-skip": async | trappable,
            "wasi:io/streams.[method]output-stream.blocking-flush": async | trappable,
            "wasi:io/streams.[method]output-stream.blocking-splice": async | trappable,
            "wasi:io/streams.[method]output-stream.blocking-write-and-flush": async | trappable,
            "wasi:io/streams.[method]output-stream.blocking-write-zeroes-and-flush":
                async | trappable,
            "wasi:io/streams.[method]output-stream.forward": async | trappable,
            default: trappable,
        },
        with: {
            "wasi:io/poll.pollable": latest::DynPollable,
            "wasi:io/streams.error": latest::bindings::io::error::Error,
            "wasi:io/streams.input-stream": latest::DynInputStream,
            "wasi:io/streams.output-stream": latest::DynOutputStream,
            "wasi:http/types.fields": latest_http::Fields,
            "wasi:http/types.future-incoming-response": latest_http::FutureIncomingResponse,
            "wasi:http/types.future-trailers": latest_http::FutureTrailers,
            "wasi:http/types.incoming-body": latest_http::IncomingBody,
            "wasi:http/types.incoming-request": latest_http::IncomingRequest,
            "wasi:http/types.incoming-response": latest_http::IncomingResponse,
            "wasi:http/types.outgoing-body": latest_http::OutgoingBody,
            "wasi:http/types.outgoing-request": latest_http::OutgoingRequest,
            "wasi:http/types.outgoing-response": latest_http::OutgoingResponse,
            "wasi:http/types.response-outparam": latest_http::ResponseOutparam,
        },
        trappable_error_type: {
            "wasi:io/streams.stream-error" => latest::StreamError,
        },
    });
}

struct HasTable;

impl HasData for HasTable {
    type Data<'a> = &'a mut ResourceTable;
}

struct HasHttp;

impl HasData for HasHttp {
    type Data<'a> = WasiHttpCtxView<'a>;
}

/// Adds the interfaces of the release candidate to `linker`.
///
/// # Errors
/// The linker already defines one of them.
pub fn add_to_linker(linker: &mut Linker<InstanceState>) -> Result<()> {
    use generated::wasi::http::{outgoing_handler, types};
    use generated::wasi::io::{poll, streams};

    fn table(state: &mut InstanceState) -> &mut ResourceTable {
        WasiView::ctx(state).table
    }

    poll::add_to_linker::<_, HasTable>(linker, table)?;
    streams::add_to_linker::<_, HasTable>(linker, table)?;
    types::add_to_linker::<_, HasHttp>(linker, WasiHttpView::http)?;
    outgoing_handler::add_to_linker::<_, HasHttp>(linker, WasiHttpView::http)
}
