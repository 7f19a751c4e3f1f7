//! WASI's key-value stores, as Spin offers them: `wasi:keyvalue/{store,batch,atomics}`. They are the
//! same as by Spin's own interface.

use std::sync::Arc;

use wasmtime::Result;
use wasmtime::component::{Linker, Resource};

use crate::process::memory_budget::Charge;
use super::key_value::{HasKeyValue, KeyValueView, OpenStore, Refused};
use crate::guest::instance::InstanceState;
use crate::storage::key_value::{Answer, Page, Store};

mod generated {
    wasmtime::component::bindgen!({
        path: "../wit/wasi-keyvalue",
        inline: "
            package spinfer:host;
            world keyvalue {
                import wasi:keyvalue/store@0.2.0-draft2;
                import wasi:keyvalue/batch@0.2.0-draft2;
                import wasi:keyvalue/atomics@0.2.0-draft2;
            }
        ",
        world: "spinfer:host/keyvalue",
        imports: {
            "wasi:keyvalue/store.open": trappable,
            "wasi:keyvalue/store.[drop]bucket": trappable,
            "wasi:keyvalue/atomics.[drop]cas": trappable,
            default: async | trappable,
        },
        with: {
            "wasi:keyvalue/store.bucket": crate::capabilities::key_value::OpenStore,
            "wasi:keyvalue/atomics.cas": super::Cas,
        },
    });
}

use generated::wasi::keyvalue::{atomics, batch, store};
use store::Error;

/// A guest's handle to a key and the value it has seen there.
#[derive(Debug)]
pub struct Cas {
    store: Arc<Store>,
    key: String,
    seen: Option<Vec<u8>>,
    /// What it is charged for that.
    _hold: Charge,
}

/// What a store has answered, for the guest.
fn told<T>(answer: Answer<T>) -> Result<T, Error> {
    answer.map_err(|error| Error::Other(error.0))
}

impl KeyValueView<'_> {
    /// A handle that has seen the value of `key` as it is now.
    async fn look(&mut self, store: Arc<Store>, key: String) -> Result<Cas, Error> {
        let seen = told(store.get(key.clone()).await)?;
        let bytes = key.len() + seen.as_ref().map_or(0, Vec::len);
        let hold = self.charge(bytes).map_err(|error| Error::Other(error.to_string()))?;
        Ok(Cas { store, key, seen, _hold: hold })
    }
}

impl store::Host for KeyValueView<'_> {
    fn open(&mut self, identifier: String) -> Result<Result<Resource<OpenStore>, Error>> {
        Ok(self.open_store(&identifier).map_err(|refused| match refused {
            Refused::AccessDenied => Error::AccessDenied,
            Refused::TableFull => Error::Other("too many stores are open".into()),
        }))
    }
}

impl store::HostBucket for KeyValueView<'_> {
    async fn get(
        &mut self,
        bucket: Resource<OpenStore>,
        key: String,
    ) -> Result<Result<Option<Vec<u8>>, Error>> {
        Ok(told(self.store(&bucket)?.get(key).await))
    }

    async fn set(
        &mut self,
        bucket: Resource<OpenStore>,
        key: String,
        value: Vec<u8>,
    ) -> Result<Result<(), Error>> {
        Ok(told(self.store(&bucket)?.set(key, value).await))
    }

    async fn delete(
        &mut self,
        bucket: Resource<OpenStore>,
        key: String,
    ) -> Result<Result<(), Error>> {
        Ok(told(self.store(&bucket)?.delete_many(vec![key]).await))
    }

    async fn exists(
        &mut self,
        bucket: Resource<OpenStore>,
        key: String,
    ) -> Result<Result<bool, Error>> {
        Ok(told(self.store(&bucket)?.exists(key).await))
    }

    async fn list_keys(
        &mut self,
        bucket: Resource<OpenStore>,
        cursor: Option<String>,
    ) -> Result<Result<store::KeyResponse, Error>> {
        let page = told(self.store(&bucket)?.keys(cursor).await);
        Ok(page.map(|Page { keys, next }| store::KeyResponse { keys, cursor: next }))
    }

    fn drop(&mut self, bucket: Resource<OpenStore>) -> Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl batch::Host for KeyValueView<'_> {
    async fn get_many(
        &mut self,
        bucket: Resource<OpenStore>,
        keys: Vec<String>,
    ) -> Result<Result<Vec<(String, Option<Vec<u8>>)>, Error>> {
        Ok(told(self.store(&bucket)?.get_many(keys).await))
    }

    async fn set_many(
        &mut self,
        bucket: Resource<OpenStore>,
        entries: Vec<(String, Vec<u8>)>,
    ) -> Result<Result<(), Error>> {
        Ok(told(self.store(&bucket)?.set_many(entries).await))
    }

    async fn delete_many(
        &mut self,
        bucket: Resource<OpenStore>,
        keys: Vec<String>,
    ) -> Result<Result<(), Error>> {
        Ok(told(self.store(&bucket)?.delete_many(keys).await))
    }
}

impl atomics::HostCas for KeyValueView<'_> {
    async fn new(
        &mut self,
        bucket: Resource<OpenStore>,
        key: String,
    ) -> Result<Result<Resource<Cas>, Error>> {
        let store = self.store(&bucket)?;
        match self.look(store, key).await {
            Ok(cas) => Ok(Ok(self.table.push(cas)?)),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn current(&mut self, cas: Resource<Cas>) -> Result<Result<Option<Vec<u8>>, Error>> {
        let Cas { store, key, .. } = self.table.get(&cas)?;
        let (store, key) = (Arc::clone(store), key.clone());
        match self.look(store, key).await {
            Ok(now) => {
                let seen = now.seen.clone();
                *self.table.get_mut(&cas)? = now;
                Ok(Ok(seen))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    fn drop(&mut self, cas: Resource<Cas>) -> Result<()> {
        self.table.delete(cas)?;
        Ok(())
    }
}

impl atomics::Host for KeyValueView<'_> {
    async fn increment(
        &mut self,
        bucket: Resource<OpenStore>,
        key: String,
        delta: i64,
    ) -> Result<Result<i64, Error>> {
        Ok(told(self.store(&bucket)?.increment(key, delta).await))
    }

    async fn swap(
        &mut self,
        cas: Resource<Cas>,
        value: Vec<u8>,
    ) -> Result<Result<(), atomics::CasError>> {
        let Cas { store, key, seen, _hold } = self.table.delete(cas)?;
        let swapped = told(store.swap(key.clone(), seen, value).await);
        match swapped {
            Ok(true) => return Ok(Ok(())),
            Ok(false) => {}
            Err(error) => return Ok(Err(atomics::CasError::StoreError(error))),
        }
        Ok(Err(match self.look(store, key).await {
            Ok(cas) => atomics::CasError::CasFailed(self.table.push(cas)?),
            Err(error) => atomics::CasError::StoreError(error),
        }))
    }
}

/// Lets guests import WASI's key-value stores.
pub fn add_to_linker(linker: &mut Linker<InstanceState>) -> Result<()> {
    store::add_to_linker::<_, HasKeyValue>(linker, InstanceState::key_value)?;
    batch::add_to_linker::<_, HasKeyValue>(linker, InstanceState::key_value)?;
    atomics::add_to_linker::<_, HasKeyValue>(linker, InstanceState::key_value)
}
