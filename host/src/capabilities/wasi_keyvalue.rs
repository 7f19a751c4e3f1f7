//! Key-value stores by WASI's interface, in the version of Spin: `wasi:keyvalue/{store,batch,atomics}`.
//! The stores, and the state in the store, are those of [`super::key_value`].

use std::sync::Arc;

use wasmtime::Result;
use wasmtime::component::{Linker, Resource};

use super::key_value::{HasKeyValue, KeyValueView, MAX_OPEN, OpenError, OpenStore};
use crate::guest::instance::InstanceState;
use crate::process::memory_budget::Charge;
use crate::storage::key_value::{GrantedStore, Page, StoreResult};

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

/// Prefix of the cursors that `list-keys` returns. As in Spin, which has no cursors, any other one is an
/// error.
const CURSOR: &str = "after:";

/// A guest's handle for compare-and-swap: a key, and the value that the guest has seen.
#[derive(Debug)]
pub struct Cas {
    store: Arc<GrantedStore>,
    key: String,
    seen: Option<Vec<u8>>,
    _charge: Charge,
}

/// Converts the result of an operation for the guest.
fn convert<T>(result: StoreResult<T>) -> Result<T, Error> {
    result.map_err(|error| Error::Other(error.0))
}

impl KeyValueView<'_> {
    /// A handle that has seen the current value of `key`.
    async fn observe(&mut self, store: Arc<GrantedStore>, key: String) -> Result<Cas, Error> {
        let seen = convert(store.get(key.clone()).await)?;
        let bytes = key.len() + seen.as_ref().map_or(0, Vec::len);
        let charge = self.charge(bytes).map_err(|error| Error::Other(error.to_string()))?;
        Ok(Cas { store, key, seen, _charge: charge })
    }
}

impl store::Host for KeyValueView<'_> {
    fn open(&mut self, identifier: String) -> Result<Result<Resource<OpenStore>, Error>> {
        Ok(self.open_store(&identifier).map_err(|error| match error {
            OpenError::AccessDenied => Error::AccessDenied,
            OpenError::TableFull => Error::Other(format!(
                "too many stores are open (at most {MAX_OPEN}), or too many handles: drop some"
            )),
        }))
    }
}

impl store::HostBucket for KeyValueView<'_> {
    async fn get(
        &mut self,
        bucket: Resource<OpenStore>,
        key: String,
    ) -> Result<Result<Option<Vec<u8>>, Error>> {
        Ok(convert(self.store(&bucket)?.get(key).await))
    }

    async fn set(
        &mut self,
        bucket: Resource<OpenStore>,
        key: String,
        value: Vec<u8>,
    ) -> Result<Result<(), Error>> {
        Ok(convert(self.store(&bucket)?.set(key, value).await))
    }

    async fn delete(
        &mut self,
        bucket: Resource<OpenStore>,
        key: String,
    ) -> Result<Result<(), Error>> {
        Ok(convert(self.store(&bucket)?.delete_many(vec![key]).await))
    }

    async fn exists(
        &mut self,
        bucket: Resource<OpenStore>,
        key: String,
    ) -> Result<Result<bool, Error>> {
        Ok(convert(self.store(&bucket)?.exists(key).await))
    }

    async fn list_keys(
        &mut self,
        bucket: Resource<OpenStore>,
        cursor: Option<String>,
    ) -> Result<Result<store::KeyResponse, Error>> {
        let store = self.store(&bucket)?;
        let after = match cursor.map(|cursor| cursor.strip_prefix(CURSOR).map(str::to_owned)) {
            Some(None) => {
                return Ok(Err(Error::Other(
                    "list-keys: this cursor is not supported; pass none, or that of the last response"
                        .into(),
                )));
            }
            after => after.flatten(),
        };
        let list = convert(store.key_list(after).await);
        Ok(list.map(|Page { keys, next }| store::KeyResponse {
            keys,
            cursor: next.map(|next| format!("{CURSOR}{next}")),
        }))
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
        Ok(convert(self.store(&bucket)?.get_many(keys).await))
    }

    async fn set_many(
        &mut self,
        bucket: Resource<OpenStore>,
        entries: Vec<(String, Vec<u8>)>,
    ) -> Result<Result<(), Error>> {
        Ok(convert(self.store(&bucket)?.set_many(entries).await))
    }

    async fn delete_many(
        &mut self,
        bucket: Resource<OpenStore>,
        keys: Vec<String>,
    ) -> Result<Result<(), Error>> {
        Ok(convert(self.store(&bucket)?.delete_many(keys).await))
    }
}

impl atomics::HostCas for KeyValueView<'_> {
    async fn new(
        &mut self,
        bucket: Resource<OpenStore>,
        key: String,
    ) -> Result<Result<Resource<Cas>, Error>> {
        let store = self.store(&bucket)?;
        match self.observe(store, key).await {
            Ok(cas) => Ok(Ok(self.table.push(cas)?)),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn current(&mut self, cas: Resource<Cas>) -> Result<Result<Option<Vec<u8>>, Error>> {
        let Cas { store, key, .. } = self.table.get(&cas)?;
        let (store, key) = (Arc::clone(store), key.clone());
        match self.observe(store, key).await {
            Ok(current) => {
                let seen = current.seen.clone();
                *self.table.get_mut(&cas)? = current;
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
        Ok(convert(self.store(&bucket)?.increment(key, delta).await))
    }

    async fn swap(
        &mut self,
        cas: Resource<Cas>,
        value: Vec<u8>,
    ) -> Result<Result<(), atomics::CasError>> {
        let Cas { store, key, seen, _charge } = self.table.delete(cas)?;
        let swapped = convert(store.swap(key.clone(), seen, value).await);
        match swapped {
            Ok(true) => return Ok(Ok(())),
            Ok(false) => {}
            Err(error) => return Ok(Err(atomics::CasError::StoreError(error))),
        }
        Ok(Err(match self.observe(store, key).await {
            Ok(cas) => atomics::CasError::CasFailed(self.table.push(cas)?),
            Err(error) => atomics::CasError::StoreError(error),
        }))
    }
}

/// Adds the key-value interfaces of WASI to `linker`.
///
/// # Errors
/// The linker already defines one of them.
pub fn add_to_linker(linker: &mut Linker<InstanceState>) -> Result<()> {
    store::add_to_linker::<_, HasKeyValue>(linker, InstanceState::key_value)?;
    batch::add_to_linker::<_, HasKeyValue>(linker, InstanceState::key_value)?;
    atomics::add_to_linker::<_, HasKeyValue>(linker, InstanceState::key_value)
}
