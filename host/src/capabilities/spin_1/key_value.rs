//! `fermyon:spin/key-value` of Spin 1: a store is the index of its resource, and a guest may pass any
//! number.

use std::sync::Arc;

use wasmtime::Result;
use wasmtime::component::Resource;

use super::wit::key_value::{self, Error};
use crate::capabilities::key_value::{KeyValueView, OpenError, OpenStore};
use crate::storage::key_value::{GrantedStore, StoreError, StoreResult};

impl KeyValueView<'_> {
    /// The open store with this number.
    fn numbered(&self, store: u32) -> Result<Arc<GrantedStore>, Error> {
        self.store(&Resource::new_borrow(store)).map_err(|_| Error::InvalidStore)
    }
}

fn convert<T>(result: StoreResult<T>) -> Result<T, Error> {
    result.map_err(|StoreError(text)| Error::Io(text))
}

impl key_value::Host for KeyValueView<'_> {
    fn open(&mut self, name: String) -> Result<Result<u32, Error>> {
        let opened = self.open_store(&name).map(|store| store.rep());
        Ok(opened.map_err(|error| match error {
            OpenError::AccessDenied => Error::AccessDenied,
            OpenError::TableFull => Error::StoreTableFull,
        }))
    }

    async fn get(&mut self, store: u32, key: String) -> Result<Result<Vec<u8>, Error>> {
        let store = match self.numbered(store) {
            Ok(store) => store,
            Err(error) => return Ok(Err(error)),
        };
        let value = convert(store.get(key).await);
        Ok(value.and_then(|value| value.ok_or(Error::NoSuchKey)))
    }

    async fn set(&mut self, store: u32, key: String, value: Vec<u8>) -> Result<Result<(), Error>> {
        Ok(match self.numbered(store) {
            Ok(store) => convert(store.set(key, value).await),
            Err(error) => Err(error),
        })
    }

    async fn delete(&mut self, store: u32, key: String) -> Result<Result<(), Error>> {
        Ok(match self.numbered(store) {
            Ok(store) => convert(store.delete_many(vec![key]).await),
            Err(error) => Err(error),
        })
    }

    async fn exists(&mut self, store: u32, key: String) -> Result<Result<bool, Error>> {
        Ok(match self.numbered(store) {
            Ok(store) => convert(store.exists(key).await),
            Err(error) => Err(error),
        })
    }

    async fn get_keys(&mut self, store: u32) -> Result<Result<Vec<String>, Error>> {
        Ok(match self.numbered(store) {
            Ok(store) => convert(store.all_keys().await),
            Err(error) => Err(error),
        })
    }

    fn close(&mut self, store: u32) -> Result<()> {
        // Checked first: the number may be that of another resource, which `delete` would remove.
        if self.numbered(store).is_ok() {
            self.table.delete(Resource::<OpenStore>::new_own(store))?;
        }
        Ok(())
    }
}
