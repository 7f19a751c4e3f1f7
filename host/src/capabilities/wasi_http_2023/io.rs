//! `wasi:io/poll` and `wasi:io/streams`.

use wasmtime::Result;
use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::p2::bindings::io::{
    error as latest_error, poll as latest_poll, streams as latest,
};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, StreamError, StreamResult};

use super::generated::wasi::io::{poll, streams};

impl poll::Host for ResourceTable {
    async fn poll_list(&mut self, pollables: Vec<Resource<DynPollable>>) -> Result<Vec<u32>> {
        latest_poll::Host::poll(self, pollables).await
    }

    async fn poll_one(&mut self, pollable: Resource<DynPollable>) -> Result<()> {
        latest_poll::HostPollable::block(self, pollable).await
    }
}

impl poll::HostPollable for ResourceTable {
    fn drop(&mut self, pollable: Resource<DynPollable>) -> Result<()> {
        latest_poll::HostPollable::drop(self, pollable)
    }
}

impl streams::Host for ResourceTable {
    fn convert_stream_error(&mut self, error: StreamError) -> Result<streams::StreamError> {
        Ok(match latest::Host::convert_stream_error(self, error)? {
            latest::StreamError::LastOperationFailed(error) => {
                streams::StreamError::LastOperationFailed(error)
            }
            latest::StreamError::Closed => streams::StreamError::Closed,
        })
    }
}

impl streams::HostError for ResourceTable {
    fn to_debug_string(&mut self, error: Resource<latest_error::Error>) -> Result<String> {
        latest_error::HostError::to_debug_string(self, error)
    }

    fn drop(&mut self, error: Resource<latest_error::Error>) -> Result<()> {
        latest_error::HostError::drop(self, error)
    }
}

impl streams::HostInputStream for ResourceTable {
    fn read(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<Vec<u8>> {
        latest::HostInputStream::read(self, stream, len)
    }

    async fn blocking_read(
        &mut self,
        stream: Resource<DynInputStream>,
        len: u64,
    ) -> StreamResult<Vec<u8>> {
        latest::HostInputStream::blocking_read(self, stream, len).await
    }

    fn skip(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<u64> {
        latest::HostInputStream::skip(self, stream, len)
    }

    async fn blocking_skip(
        &mut self,
        stream: Resource<DynInputStream>,
        len: u64,
    ) -> StreamResult<u64> {
        latest::HostInputStream::blocking_skip(self, stream, len).await
    }

    fn subscribe(&mut self, stream: Resource<DynInputStream>) -> Result<Resource<DynPollable>> {
        latest::HostInputStream::subscribe(self, stream)
    }

    async fn drop(&mut self, stream: Resource<DynInputStream>) -> Result<()> {
        latest::HostInputStream::drop(self, stream).await
    }
}

impl streams::HostOutputStream for ResourceTable {
    fn check_write(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<u64> {
        latest::HostOutputStream::check_write(self, stream)
    }

    fn write(&mut self, stream: Resource<DynOutputStream>, contents: Vec<u8>) -> StreamResult<()> {
        latest::HostOutputStream::write(self, stream, contents)
    }

    async fn blocking_write_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        contents: Vec<u8>,
    ) -> StreamResult<()> {
        latest::HostOutputStream::blocking_write_and_flush(self, stream, contents).await
    }

    fn flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        latest::HostOutputStream::flush(self, stream)
    }

    async fn blocking_flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        latest::HostOutputStream::blocking_flush(self, stream).await
    }

    fn subscribe(&mut self, stream: Resource<DynOutputStream>) -> Result<Resource<DynPollable>> {
        latest::HostOutputStream::subscribe(self, stream)
    }

    fn write_zeroes(&mut self, stream: Resource<DynOutputStream>, len: u64) -> StreamResult<()> {
        latest::HostOutputStream::write_zeroes(self, stream, len)
    }

    async fn blocking_write_zeroes_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        len: u64,
    ) -> StreamResult<()> {
        latest::HostOutputStream::blocking_write_zeroes_and_flush(self, stream, len).await
    }

    fn splice(
        &mut self,
        stream: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        len: u64,
    ) -> StreamResult<u64> {
        latest::HostOutputStream::splice(self, stream, from, len)
    }

    async fn blocking_splice(
        &mut self,
        stream: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        len: u64,
    ) -> StreamResult<u64> {
        latest::HostOutputStream::blocking_splice(self, stream, from, len).await
    }

    /// What can be moved without another wait, as `splice` without a limit. WASI 0.2 has no `forward`.
    async fn forward(
        &mut self,
        stream: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
    ) -> StreamResult<u64> {
        latest::HostOutputStream::blocking_splice(self, stream, from, u64::MAX).await
    }

    async fn drop(&mut self, stream: Resource<DynOutputStream>) -> Result<()> {
        latest::HostOutputStream::drop(self, stream).await
    }
}
