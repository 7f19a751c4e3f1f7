//! The call of a guest for one request, through either version of `wasi:http`.
//!
//! wasmtime's `handler::Prepared` makes the same calls. Here the response is sent later, and its body
//! fails if the guest does not finish it ([`UnsentResponses`]).

use std::pin::Pin;
use std::sync::Arc;

use parking_lot::Mutex;
use wasmtime::component::{Accessor, Resource, TypedFuncCallConcurrent};
use wasmtime::{Result, StoreContextMut, format_err};
use wasmtime_wasi_http::handler::{Proxy, Request};
use wasmtime_wasi_http::p2::bindings::http::types as p2_types;
use wasmtime_wasi_http::p3::bindings::http::types as p3_types;
use wasmtime_wasi_http::{Error, WasiHttpView, p2, p3};

use super::unsent::{Responder, UnsentResponses};
use crate::guest::instance::InstanceState;

type P2Arguments = (Resource<p2_types::IncomingRequest>, Resource<p2_types::ResponseOutparam>);
type P3Results = (Result<Resource<p3_types::Response>, p3_types::ErrorCode>,);

/// A call that has started.
pub(super) enum GuestCall<'a> {
    P2 {
        guest: &'a p2::bindings::Proxy,
        call: TypedFuncCallConcurrent<InstanceState, P2Arguments, ()>,
        /// Taken when the guest responds, which it does within its call.
        responder: Arc<Mutex<Option<Responder>>>,
    },
    P3 {
        guest: &'a p3::bindings::Service,
        call: TypedFuncCallConcurrent<InstanceState, (Resource<p3_types::Request>,), P3Results>,
        responder: Responder,
        /// Whether the request's body was received completely.
        received: Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>,
    },
}

impl<'a> GuestCall<'a> {
    pub(super) fn start(
        mut store: StoreContextMut<'_, InstanceState>,
        proxy: &'a Proxy,
        request: Request,
        responder: Responder,
        unsent: &Arc<UnsentResponses>,
    ) -> Result<Self> {
        match proxy {
            Proxy::P3(guest) => {
                let (request, received) =
                    p3::Request::from_http(store.data_mut().http().hooks, request);
                let request = store.data_mut().http().table.push(request)?;
                let handle = guest.wasi_http_handler().func_handle();
                let call = handle.start_call_concurrent(store, (request,))?;
                Ok(Self::P3 { guest, call, responder, received: Box::pin(received) })
            }
            Proxy::P2(guest) => {
                let responder = Arc::new(Mutex::new(Some(responder)));
                let mut view = store.data_mut().http();
                let request = view.new_incoming_request(p2_types::Scheme::Http, request)?;
                let (responding, unsent) = (Arc::clone(&responder), Arc::clone(unsent));
                let out = view.new_response_outparam_from_callback(move |response| {
                    if let Some(responder) = responding.lock().take() {
                        unsent.add(responder, response.map_err(Into::into), false);
                    }
                })?;
                let handle = guest.wasi_http_incoming_handler().func_handle();
                let call = handle.start_call_concurrent(store, (request, out))?;
                Ok(Self::P2 { guest, call, responder })
            }
        }
    }

    /// Runs the call to its end. Adds the response to those that are `unsent`, or the error instead of
    /// one.
    ///
    /// # Errors
    /// The guest fails after its response.
    pub(super) async fn run(
        self,
        accessor: &Accessor<InstanceState>,
        unsent: &UnsentResponses,
    ) -> Result<()> {
        match self {
            Self::P3 { guest, call, responder, received } => {
                let handle = guest.wasi_http_handler().func_handle();
                let returned = handle.finish_call_concurrent(accessor, call).await;
                let returned = returned.and_then(|(response,)| Ok(response?));
                let (response, passed_on) = accessor.with(|mut store| {
                    let response = returned.and_then(|response| {
                        let response = store.data_mut().http().table.delete(response)?;
                        response.into_http(&mut store, received)
                    });
                    (response, store.data_mut().outbound.take_passed_on())
                });
                unsent.add(responder, response, passed_on);
                Ok(())
            }
            Self::P2 { guest, call, responder } => {
                let handle = guest.wasi_http_incoming_handler().func_handle();
                let returned = handle.finish_call_concurrent(accessor, call).await;
                let Some(responder) = responder.lock().take() else { return returned };
                let none = || Err(format_err!("the guest set no response"));
                unsent.add(responder, returned.and_then(|()| none()), false);
                Ok(())
            }
        }
    }
}
