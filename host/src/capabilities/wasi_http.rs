//! `wasi:http` in both versions. The functions that send a request take one without an authority too,
//! which is for the application itself: the host functions of wasmtime refuse it before the host sees it.

use http::uri::Authority;
use wasmtime::StoreContextMut;
use wasmtime::component::{Accessor, HasData, Linker, Resource};
use wasmtime_wasi::TrappableError;
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler::Host as _;
use wasmtime_wasi_http::p2::bindings::http::types as p2;
use wasmtime_wasi_http::p3::bindings::http::client::{self, HostWithStore};
use wasmtime_wasi_http::p3::bindings::http::types as p3;
use wasmtime_wasi_http::{WasiHttp, WasiHttpCtxView, WasiHttpView};

use crate::capabilities::outbound_http::SELF;
use crate::guest::instance::InstanceState;

/// Links `wasi:http` 0.2 and 0.3.
///
/// # Errors
/// An interface is linked already.
pub fn add_to_linker(linker: &mut Linker<InstanceState>) -> wasmtime::Result<()> {
    let options = wasmtime_wasi_http::p2::bindings::LinkOptions::default();
    p2::add_to_linker::<_, WasiHttp>(linker, &(&options).into(), InstanceState::http)?;
    linker.instance(OUTGOING_HANDLER)?.func_wrap("handle", handle)?;
    p3::add_to_linker::<_, WasiHttp>(linker, InstanceState::http)?;
    client::add_to_linker::<_, HttpClient>(linker, InstanceState::http)
}

/// The interface of WASI 0.2 that sends requests, in the newest version that wasmtime has.
const OUTGOING_HANDLER: &str = "wasi:http/outgoing-handler@0.2.12";

/// `handle` of [`OUTGOING_HANDLER`].
fn handle(
    mut store: StoreContextMut<'_, InstanceState>,
    (request, options): (Resource<p2::OutgoingRequest>, Option<Resource<p2::RequestOptions>>),
) -> wasmtime::Result<(Result<Resource<p2::FutureIncomingResponse>, p2::ErrorCode>,)> {
    let mut http = store.data_mut().http();
    let authority = &mut http.table.get_mut(&request)?.authority;
    authority.get_or_insert_with(|| SELF.to_owned());
    Ok((match http.handle(request, options) {
        Ok(response) => Ok(response),
        Err(error) => Err(error.downcast()?),
    },))
}

/// `wasi:http/client` of WASI 0.3.
struct HttpClient;

impl HasData for HttpClient {
    type Data<'a> = WasiHttpCtxView<'a>;
}

impl HostWithStore<InstanceState> for HttpClient {
    async fn send(
        store: &Accessor<InstanceState, Self>,
        request: Resource<p3::Request>,
    ) -> Result<Resource<p3::Response>, TrappableError<p3::ErrorCode>> {
        store.with(|mut store| {
            let request = store.get().table.get_mut(&request);
            let request = request.map_err(TrappableError::trap)?;
            request.authority.get_or_insert(Authority::from_static(SELF));
            Ok::<_, TrappableError<p3::ErrorCode>>(())
        })?;
        let store = store.with_getter::<WasiHttp>(InstanceState::http);
        <WasiHttp as HostWithStore<InstanceState>>::send(&store, request).await
    }
}
