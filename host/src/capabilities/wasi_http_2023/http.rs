//! `wasi:http/types` and `wasi:http/outgoing-handler`. Where WASI 0.2 returns an error and this version
//! cannot, the call traps.

use std::time::Duration;

use wasmtime::component::Resource;
use wasmtime::error::Context;
use wasmtime::{Result, bail, format_err};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable};
use wasmtime_wasi_http::p2::HeaderError;
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler as latest_handler;
use wasmtime_wasi_http::p2::bindings::http::types::{
    self as latest, ErrorCode, Fields, FutureIncomingResponse, FutureTrailers, IncomingBody,
    IncomingRequest, IncomingResponse, OutgoingBody, OutgoingRequest, OutgoingResponse,
    ResponseOutparam,
};
use wasmtime_wasi_http::{RequestOptions, WasiHttpCtxView};

use super::generated::wasi::http::{outgoing_handler, types};
use crate::capabilities::outbound_http::SELF;

/// The trap for a header that cannot be set.
fn trap(error: HeaderError) -> wasmtime::Error {
    match error.downcast() {
        Ok(error) => format_err!("a header cannot be set: {error:?}"),
        Err(trap) => trap,
    }
}

impl types::Host for WasiHttpCtxView<'_> {}

impl types::HostFields for WasiHttpCtxView<'_> {
    fn new(&mut self, entries: Vec<(String, Vec<u8>)>) -> Result<Resource<Fields>> {
        latest::HostFields::from_list(self, entries).map_err(trap)
    }

    fn get(&mut self, fields: Resource<Fields>, name: String) -> Result<Vec<Vec<u8>>> {
        latest::HostFields::get(self, fields, name)
    }

    fn set(&mut self, fields: Resource<Fields>, name: String, values: Vec<Vec<u8>>) -> Result<()> {
        latest::HostFields::set(self, fields, name, values).map_err(trap)
    }

    fn delete(&mut self, fields: Resource<Fields>, name: String) -> Result<()> {
        latest::HostFields::delete(self, fields, name).map_err(trap)
    }

    fn append(&mut self, fields: Resource<Fields>, name: String, value: Vec<u8>) -> Result<()> {
        latest::HostFields::append(self, fields, name, value).map_err(trap)
    }

    fn entries(&mut self, fields: Resource<Fields>) -> Result<Vec<(String, Vec<u8>)>> {
        latest::HostFields::entries(self, fields)
    }

    fn clone(&mut self, fields: Resource<Fields>) -> Result<Resource<Fields>> {
        latest::HostFields::clone(self, fields)
    }

    fn drop(&mut self, fields: Resource<Fields>) -> Result<()> {
        latest::HostFields::drop(self, fields)
    }
}

impl types::HostIncomingRequest for WasiHttpCtxView<'_> {
    fn method(&mut self, request: Resource<IncomingRequest>) -> Result<types::Method> {
        latest::HostIncomingRequest::method(self, request).map(Into::into)
    }

    fn path_with_query(&mut self, request: Resource<IncomingRequest>) -> Result<Option<String>> {
        latest::HostIncomingRequest::path_with_query(self, request)
    }

    fn scheme(&mut self, request: Resource<IncomingRequest>) -> Result<Option<types::Scheme>> {
        Ok(latest::HostIncomingRequest::scheme(self, request)?.map(Into::into))
    }

    fn authority(&mut self, request: Resource<IncomingRequest>) -> Result<Option<String>> {
        latest::HostIncomingRequest::authority(self, request)
    }

    fn headers(&mut self, request: Resource<IncomingRequest>) -> Result<Resource<Fields>> {
        latest::HostIncomingRequest::headers(self, request)
    }

    fn consume(
        &mut self,
        request: Resource<IncomingRequest>,
    ) -> Result<Result<Resource<IncomingBody>, ()>> {
        latest::HostIncomingRequest::consume(self, request)
    }

    fn drop(&mut self, request: Resource<IncomingRequest>) -> Result<()> {
        latest::HostIncomingRequest::drop(self, request)
    }
}

impl types::HostOutgoingRequest for WasiHttpCtxView<'_> {
    fn new(
        &mut self,
        method: types::Method,
        path_with_query: Option<String>,
        scheme: Option<types::Scheme>,
        authority: Option<String>,
        headers: Resource<Fields>,
    ) -> Result<Resource<OutgoingRequest>> {
        let headers = latest::HostFields::clone(self, headers)?;
        let request = latest::HostOutgoingRequest::new(self, headers)?;
        let same = || Resource::new_borrow(request.rep());
        // Without one, it is a request to this application.
        let authority = authority.unwrap_or_else(|| SELF.to_owned());
        let invalid = |what| move |()| format_err!("the {what} of an outgoing request is invalid");
        latest::HostOutgoingRequest::set_method(self, same(), method.into())?
            .map_err(invalid("method"))?;
        latest::HostOutgoingRequest::set_path_with_query(self, same(), path_with_query)?
            .map_err(invalid("path"))?;
        latest::HostOutgoingRequest::set_scheme(self, same(), scheme.map(Into::into))?
            .map_err(invalid("scheme"))?;
        latest::HostOutgoingRequest::set_authority(self, same(), Some(authority))?
            .map_err(invalid("authority"))?;
        Ok(request)
    }

    fn write(
        &mut self,
        request: Resource<OutgoingRequest>,
    ) -> Result<Result<Resource<OutgoingBody>, ()>> {
        latest::HostOutgoingRequest::body(self, request)
    }

    fn drop(&mut self, request: Resource<OutgoingRequest>) -> Result<()> {
        latest::HostOutgoingRequest::drop(self, request)
    }
}

impl types::HostResponseOutparam for WasiHttpCtxView<'_> {
    fn set(
        &mut self,
        param: Resource<ResponseOutparam>,
        response: Result<Resource<OutgoingResponse>, types::Error>,
    ) -> Result<()> {
        let response = response.map_err(|error| {
            let (types::Error::InvalidUrl(text)
            | types::Error::TimeoutError(text)
            | types::Error::ProtocolError(text)
            | types::Error::UnexpectedError(text)) = error;
            ErrorCode::InternalError(Some(text))
        });
        latest::HostResponseOutparam::set(self, param, response)
    }

    fn drop(&mut self, param: Resource<ResponseOutparam>) -> Result<()> {
        latest::HostResponseOutparam::drop(self, param)
    }
}

impl types::HostIncomingResponse for WasiHttpCtxView<'_> {
    fn status(&mut self, response: Resource<IncomingResponse>) -> Result<types::StatusCode> {
        latest::HostIncomingResponse::status(self, response)
    }

    fn headers(&mut self, response: Resource<IncomingResponse>) -> Result<Resource<Fields>> {
        latest::HostIncomingResponse::headers(self, response)
    }

    fn consume(
        &mut self,
        response: Resource<IncomingResponse>,
    ) -> Result<Result<Resource<IncomingBody>, ()>> {
        latest::HostIncomingResponse::consume(self, response)
    }

    fn drop(&mut self, response: Resource<IncomingResponse>) -> Result<()> {
        latest::HostIncomingResponse::drop(self, response)
    }
}

impl types::HostIncomingBody for WasiHttpCtxView<'_> {
    fn stream(
        &mut self,
        body: Resource<IncomingBody>,
    ) -> Result<Result<Resource<DynInputStream>, ()>> {
        latest::HostIncomingBody::stream(self, body)
    }

    fn finish(&mut self, body: Resource<IncomingBody>) -> Result<Resource<FutureTrailers>> {
        latest::HostIncomingBody::finish(self, body)
    }

    fn drop(&mut self, body: Resource<IncomingBody>) -> Result<()> {
        latest::HostIncomingBody::drop(self, body)
    }
}

impl types::HostFutureTrailers for WasiHttpCtxView<'_> {
    fn subscribe(&mut self, trailers: Resource<FutureTrailers>) -> Result<Resource<DynPollable>> {
        latest::HostFutureTrailers::subscribe(self, trailers)
    }

    fn get(
        &mut self,
        trailers: Resource<FutureTrailers>,
    ) -> Result<Option<Result<Resource<Fields>, types::Error>>> {
        Ok(match latest::HostFutureTrailers::get(self, trailers)? {
            None => None,
            Some(Ok(Ok(Some(trailers)))) => Some(Ok(trailers)),
            Some(Ok(Ok(None))) => Some(Ok(latest::HostFields::new(self)?)),
            Some(Ok(Err(error))) => Some(Err(error.into())),
            Some(Err(())) => bail!("the trailers were taken before"),
        })
    }

    fn drop(&mut self, trailers: Resource<FutureTrailers>) -> Result<()> {
        latest::HostFutureTrailers::drop(self, trailers)
    }
}

impl types::HostOutgoingResponse for WasiHttpCtxView<'_> {
    fn new(
        &mut self,
        status: types::StatusCode,
        headers: Resource<Fields>,
    ) -> Result<Resource<OutgoingResponse>> {
        let headers = latest::HostFields::clone(self, headers)?;
        let response = latest::HostOutgoingResponse::new(self, headers)?;
        let same = Resource::new_borrow(response.rep());
        latest::HostOutgoingResponse::set_status_code(self, same, status)?
            .map_err(|()| format_err!("{status} is not a status of HTTP"))?;
        Ok(response)
    }

    fn write(
        &mut self,
        response: Resource<OutgoingResponse>,
    ) -> Result<Result<Resource<OutgoingBody>, ()>> {
        latest::HostOutgoingResponse::body(self, response)
    }

    fn drop(&mut self, response: Resource<OutgoingResponse>) -> Result<()> {
        latest::HostOutgoingResponse::drop(self, response)
    }
}

impl types::HostOutgoingBody for WasiHttpCtxView<'_> {
    fn write(
        &mut self,
        body: Resource<OutgoingBody>,
    ) -> Result<Result<Resource<DynOutputStream>, ()>> {
        latest::HostOutgoingBody::write(self, body)
    }

    fn finish(
        &mut self,
        body: Resource<OutgoingBody>,
        trailers: Option<Resource<Fields>>,
    ) -> Result<()> {
        latest::HostOutgoingBody::finish(self, body, trailers)
            .map_err(wasmtime::Error::from)
            .context("the body of a message does not have the declared length")
    }

    fn drop(&mut self, body: Resource<OutgoingBody>) -> Result<()> {
        latest::HostOutgoingBody::drop(self, body)
    }
}

impl types::HostFutureIncomingResponse for WasiHttpCtxView<'_> {
    fn get(
        &mut self,
        response: Resource<FutureIncomingResponse>,
    ) -> Result<Option<Result<Result<Resource<IncomingResponse>, types::Error>, ()>>> {
        let response = latest::HostFutureIncomingResponse::get(self, response)?;
        Ok(response.map(|once| once.map(|response| response.map_err(Into::into))))
    }

    fn subscribe(
        &mut self,
        response: Resource<FutureIncomingResponse>,
    ) -> Result<Resource<DynPollable>> {
        latest::HostFutureIncomingResponse::subscribe(self, response)
    }

    fn drop(&mut self, response: Resource<FutureIncomingResponse>) -> Result<()> {
        latest::HostFutureIncomingResponse::drop(self, response)
    }
}

impl outgoing_handler::Host for WasiHttpCtxView<'_> {
    fn handle(
        &mut self,
        request: Resource<OutgoingRequest>,
        options: Option<types::RequestOptions>,
    ) -> Result<Result<Resource<FutureIncomingResponse>, types::Error>> {
        let options = options.map(|options| {
            let timeout = |ms: Option<u32>| ms.map(|ms| Duration::from_millis(ms.into()));
            self.table.push(RequestOptions {
                connect_timeout: timeout(options.connect_timeout_ms),
                first_byte_timeout: timeout(options.first_byte_timeout_ms),
                between_bytes_timeout: timeout(options.between_bytes_timeout_ms),
            })
        });
        let options = options.transpose()?;
        let same = options.as_ref().map(|options| Resource::new_borrow(options.rep()));
        let response = latest_handler::Host::handle(self, request, same);
        if let Some(options) = options {
            self.table.delete(options)?;
        }
        match response {
            Ok(response) => Ok(Ok(response)),
            Err(error) => Ok(Err(error.downcast()?.into())),
        }
    }
}

impl From<ErrorCode> for types::Error {
    fn from(code: ErrorCode) -> Self {
        let text = format!("{code:?}");
        match code {
            ErrorCode::HttpRequestUriInvalid | ErrorCode::HttpRequestUriTooLong => {
                Self::InvalidUrl(text)
            }
            ErrorCode::DnsTimeout
            | ErrorCode::ConnectionTimeout
            | ErrorCode::ConnectionReadTimeout
            | ErrorCode::ConnectionWriteTimeout
            | ErrorCode::HttpResponseTimeout => Self::TimeoutError(text),
            ErrorCode::HttpProtocolError => Self::ProtocolError(text),
            _ => Self::UnexpectedError(text),
        }
    }
}

impl From<latest::Method> for types::Method {
    fn from(method: latest::Method) -> Self {
        match method {
            latest::Method::Get => Self::Get,
            latest::Method::Head => Self::Head,
            latest::Method::Post => Self::Post,
            latest::Method::Put => Self::Put,
            latest::Method::Delete => Self::Delete,
            latest::Method::Connect => Self::Connect,
            latest::Method::Options => Self::Options,
            latest::Method::Trace => Self::Trace,
            latest::Method::Patch => Self::Patch,
            latest::Method::Other(name) => Self::Other(name),
        }
    }
}

impl From<types::Method> for latest::Method {
    fn from(method: types::Method) -> Self {
        match method {
            types::Method::Get => Self::Get,
            types::Method::Head => Self::Head,
            types::Method::Post => Self::Post,
            types::Method::Put => Self::Put,
            types::Method::Delete => Self::Delete,
            types::Method::Connect => Self::Connect,
            types::Method::Options => Self::Options,
            types::Method::Trace => Self::Trace,
            types::Method::Patch => Self::Patch,
            types::Method::Other(name) => Self::Other(name),
        }
    }
}

impl From<latest::Scheme> for types::Scheme {
    fn from(scheme: latest::Scheme) -> Self {
        match scheme {
            latest::Scheme::Http => Self::Http,
            latest::Scheme::Https => Self::Https,
            latest::Scheme::Other(name) => Self::Other(name),
        }
    }
}

impl From<types::Scheme> for latest::Scheme {
    fn from(scheme: types::Scheme) -> Self {
        match scheme {
            types::Scheme::Http => Self::Http,
            types::Scheme::Https => Self::Https,
            types::Scheme::Other(name) => Self::Other(name),
        }
    }
}
