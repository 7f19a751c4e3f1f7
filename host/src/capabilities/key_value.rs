//! Key-value stores by Spin's interfaces, `spin:key-value` and `fermyon:spin/key-value`. The stores
//! themselves: [`crate::storage::key_value`].

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;
use wasmtime::component::{
    Accessor, Destination, FutureReader, HasData, Linker, Resource, ResourceTable, StreamProducer,
    StreamReader, StreamResult, VecBuffer,
};
use wasmtime::{Result, StoreContextMut};

use crate::guest::instance::InstanceState;
use crate::process::memory_budget::{Charge, MemoryBudget, OverBudget};
use crate::storage::key_value::{GrantedStore, Page, StoreResult};

mod generated {
    wasmtime::component::bindgen!({
        path: ["../wit/spin-key-value", "../wit/fermyon-spin"],
        inline: "
            package spinfer:host;
            world key-value {
                import spin:key-value/key-value@3.0.0;
                import fermyon:spin/key-value@2.0.0;
            }
        ",
        world: "spinfer:host/key-value",
        imports: {
            "fermyon:spin/key-value.[static]store.open": trappable,
            "fermyon:spin/key-value.[drop]store": trappable,
            "fermyon:spin/key-value": async | trappable,
            default: trappable,
        },
        with: {
            "spin:key-value/key-value.store": super::OpenStore,
            "fermyon:spin/key-value.store": super::OpenStore,
        },
    });
}

use generated::fermyon::spin::key_value as fermyon;
use generated::spin::key_value::key_value as spin;

/// Maximum number of stores that an instance has open, as in Spin.
pub(super) const MAX_OPEN: usize = 256;

/// A guest's handle to a store.
#[derive(Debug)]
pub struct OpenStore {
    store: Arc<GrantedStore>,
    _open: Arc<()>,
}

/// The key-value stores of an instance.
#[derive(Debug)]
pub struct KeyValueCtx {
    /// The stores granted to the component, by label.
    stores: Arc<HashMap<String, Arc<GrantedStore>>>,
    /// Cloned for each open store.
    open: Arc<()>,
    memory: MemoryBudget,
}

impl KeyValueCtx {
    #[must_use]
    pub fn new(stores: Arc<HashMap<String, Arc<GrantedStore>>>, memory: MemoryBudget) -> Self {
        Self { stores, open: Arc::default(), memory }
    }
}

/// The key-value stores of an instance, borrowed for one call.
#[derive(Debug)]
pub struct KeyValueView<'a> {
    pub ctx: &'a mut KeyValueCtx,
    pub table: &'a mut ResourceTable,
}

/// Why a store cannot be opened.
#[derive(Debug)]
pub(super) enum OpenError {
    AccessDenied,
    TableFull,
}

impl KeyValueView<'_> {
    pub(super) fn open_store(&mut self, label: &str) -> Result<Resource<OpenStore>, OpenError> {
        let store = self.ctx.stores.get(label).ok_or(OpenError::AccessDenied)?;
        if Arc::strong_count(&self.ctx.open) > MAX_OPEN {
            return Err(OpenError::TableFull);
        }
        let open = OpenStore { store: Arc::clone(store), _open: Arc::clone(&self.ctx.open) };
        self.table.push(open).map_err(|_| OpenError::TableFull)
    }

    pub(super) fn store(&self, open: &Resource<OpenStore>) -> Result<Arc<GrantedStore>> {
        Ok(Arc::clone(&self.table.get(open)?.store))
    }

    /// Charges the instance for `bytes` that the host holds for it.
    pub(super) fn charge(&self, bytes: usize) -> Result<Charge, OverBudget> {
        self.ctx.memory.charge(bytes)
    }
}

impl spin::Host for KeyValueView<'_> {}

impl spin::HostStore for KeyValueView<'_> {
    fn drop(&mut self, store: Resource<OpenStore>) -> Result<()> {
        self.table.delete(store)?;
        Ok(())
    }
}

fn spin_error(error: crate::storage::key_value::StoreError) -> spin::Error {
    spin::Error::Other(error.0)
}

impl HasKeyValue {
    fn store<T>(
        accessor: &Accessor<T, Self>,
        open: &Resource<OpenStore>,
    ) -> Result<Arc<GrantedStore>> {
        accessor.with(|mut access| access.get().store(open))
    }
}

impl<T> spin::HostStoreWithStore<T> for HasKeyValue {
    async fn open(
        accessor: &Accessor<T, Self>,
        label: String,
    ) -> Result<Result<Resource<OpenStore>, spin::Error>> {
        let opened = accessor.with(|mut access| access.get().open_store(&label));
        Ok(opened.map_err(|error| match error {
            OpenError::AccessDenied => spin::Error::AccessDenied,
            OpenError::TableFull => spin::Error::StoreTableFull,
        }))
    }

    async fn get(
        accessor: &Accessor<T, Self>,
        open: Resource<OpenStore>,
        key: String,
    ) -> Result<Result<Option<Vec<u8>>, spin::Error>> {
        Ok(Self::store(accessor, &open)?.get(key).await.map_err(spin_error))
    }

    async fn set(
        accessor: &Accessor<T, Self>,
        open: Resource<OpenStore>,
        key: String,
        value: Vec<u8>,
    ) -> Result<Result<(), spin::Error>> {
        let store = Self::store(accessor, &open)?;
        // Concurrent calls hold values too, so each is charged.
        let charge = accessor.with(|mut access| access.get().charge(key.len() + value.len()));
        let _charge = match charge {
            Ok(charge) => charge,
            Err(error) => return Ok(Err(spin::Error::Other(error.to_string()))),
        };
        Ok(store.set(key, value).await.map_err(spin_error))
    }

    async fn delete(
        accessor: &Accessor<T, Self>,
        open: Resource<OpenStore>,
        key: String,
    ) -> Result<Result<(), spin::Error>> {
        Ok(Self::store(accessor, &open)?.delete_many(vec![key]).await.map_err(spin_error))
    }

    async fn exists(
        accessor: &Accessor<T, Self>,
        open: Resource<OpenStore>,
        key: String,
    ) -> Result<Result<bool, spin::Error>> {
        Ok(Self::store(accessor, &open)?.exists(key).await.map_err(spin_error))
    }

    async fn get_keys(
        accessor: &Accessor<T, Self>,
        open: Resource<OpenStore>,
    ) -> Result<(StreamReader<String>, FutureReader<Result<(), spin::Error>>)> {
        let store = Self::store(accessor, &open)?;
        let (sender, result) = oneshot::channel();
        let keys =
            KeyStream { page: Some(KeyStream::after(&store, None)), store, result: Some(sender) };
        accessor.with(|mut access| {
            let keys = StreamReader::new(&mut access, keys)?;
            Ok((keys, FutureReader::new(&mut access, result)?))
        })
    }
}

/// The keys of a store, read page by page as the guest reads the stream.
struct KeyStream {
    store: Arc<GrantedStore>,
    /// The next page; `None` after the last.
    page: Option<BoxFuture<'static, StoreResult<Page>>>,
    /// Receives the result of the listing, once.
    result: Option<oneshot::Sender<Result<(), spin::Error>>>,
}

impl KeyStream {
    fn after(
        store: &Arc<GrantedStore>,
        after: Option<String>,
    ) -> BoxFuture<'static, StoreResult<Page>> {
        let store = Arc::clone(store);
        async move { store.keys(after).await }.boxed()
    }

    fn end(&mut self, result: Result<(), spin::Error>) {
        if let Some(sender) = self.result.take() {
            // Fails if the guest has dropped the future.
            let _ = sender.send(result);
        }
    }
}

impl<D> StreamProducer<D> for KeyStream {
    type Item = String;
    type Buffer = VecBuffer<String>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, D>,
        mut destination: Destination<'a, String, VecBuffer<String>>,
        finish: bool,
    ) -> Poll<Result<StreamResult>> {
        if destination.remaining(&mut store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let Some(page) = &mut self.page else {
            return Poll::Ready(Ok(StreamResult::Dropped));
        };
        let page = match page.as_mut().poll(cx) {
            Poll::Ready(page) => page,
            Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => return Poll::Pending,
        };
        self.page = None;
        let (keys, more) = match page {
            Ok(Page { keys, next: Some(next) }) => {
                self.page = Some(Self::after(&self.store, Some(next)));
                (keys, StreamResult::Completed)
            }
            Ok(Page { keys, next: None }) => {
                self.end(Ok(()));
                (keys, StreamResult::Dropped)
            }
            Err(error) => {
                self.end(Err(spin_error(error)));
                (Vec::new(), StreamResult::Dropped)
            }
        };
        destination.set_buffer(keys.into());
        Poll::Ready(Ok(more))
    }
}

impl Drop for KeyStream {
    fn drop(&mut self) {
        // A guest that stops reading early is not a failure of the listing.
        self.end(Ok(()));
    }
}

impl fermyon::Host for KeyValueView<'_> {}

fn fermyon_error(error: crate::storage::key_value::StoreError) -> fermyon::Error {
    fermyon::Error::Other(error.0)
}

impl fermyon::HostStore for KeyValueView<'_> {
    fn open(&mut self, label: String) -> Result<Result<Resource<OpenStore>, fermyon::Error>> {
        Ok(self.open_store(&label).map_err(|error| match error {
            OpenError::AccessDenied => fermyon::Error::AccessDenied,
            OpenError::TableFull => fermyon::Error::StoreTableFull,
        }))
    }

    async fn get(
        &mut self,
        open: Resource<OpenStore>,
        key: String,
    ) -> Result<Result<Option<Vec<u8>>, fermyon::Error>> {
        Ok(self.store(&open)?.get(key).await.map_err(fermyon_error))
    }

    async fn set(
        &mut self,
        open: Resource<OpenStore>,
        key: String,
        value: Vec<u8>,
    ) -> Result<Result<(), fermyon::Error>> {
        Ok(self.store(&open)?.set(key, value).await.map_err(fermyon_error))
    }

    async fn delete(
        &mut self,
        open: Resource<OpenStore>,
        key: String,
    ) -> Result<Result<(), fermyon::Error>> {
        Ok(self.store(&open)?.delete_many(vec![key]).await.map_err(fermyon_error))
    }

    async fn exists(
        &mut self,
        open: Resource<OpenStore>,
        key: String,
    ) -> Result<Result<bool, fermyon::Error>> {
        Ok(self.store(&open)?.exists(key).await.map_err(fermyon_error))
    }

    async fn get_keys(
        &mut self,
        open: Resource<OpenStore>,
    ) -> Result<Result<Vec<String>, fermyon::Error>> {
        Ok(self.store(&open)?.all_keys().await.map_err(fermyon_error))
    }

    fn drop(&mut self, store: Resource<OpenStore>) -> Result<()> {
        self.table.delete(store)?;
        Ok(())
    }
}

pub(super) struct HasKeyValue;

impl HasData for HasKeyValue {
    type Data<'a> = KeyValueView<'a>;
}

/// Adds the key-value interfaces of Spin to `linker`.
///
/// # Errors
/// The linker already defines one of them.
pub fn add_to_linker(linker: &mut Linker<InstanceState>) -> Result<()> {
    spin::add_to_linker::<_, HasKeyValue>(linker, InstanceState::key_value)?;
    fermyon::add_to_linker::<_, HasKeyValue>(linker, InstanceState::key_value)
}
