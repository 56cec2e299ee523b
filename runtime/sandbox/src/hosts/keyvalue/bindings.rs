//! The interfaces of `wasi:keyvalue` for guests.

use std::sync::Arc;

use wasmtime::component::{HasData, Linker, Resource, ResourceTable, ResourceTableError};

use super::names::encode;
use super::{
    Buckets, DEFAULT_BUCKET, Failure, MAX_BATCH, Outcome, PAGE, Store, incremented, other,
};
use crate::link::ComponentState;
use generated::wasi::keyvalue::{atomics, batch, store};

mod generated {
    wasmtime::component::bindgen!({
        path: "wit/keyvalue",
        world: "wasi:keyvalue/imports",
        imports: { default: async | trappable },
        with: {
            "wasi:keyvalue/store.bucket": crate::hosts::keyvalue::bindings::Bucket,
        },
        trappable_error_type: {
            "wasi:keyvalue/store.error" => crate::hosts::keyvalue::bindings::Error,
        },
    });
}

/// The `bucket` resource.
#[derive(Clone)]
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Bucket {
    store: Arc<dyn Store>,
    name: String,
}

/// What went wrong, for the guest; or a trap.
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub enum Error {
    Told(store::Error),
    Trap(wasmtime::Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Told(match failure {
            Failure::NoSuchStore => store::Error::NoSuchStore,
            Failure::AccessDenied => store::Error::AccessDenied,
            Failure::Other(why) => store::Error::Other(why),
        })
    }
}

impl From<ResourceTableError> for Error {
    fn from(error: ResourceTableError) -> Self {
        Self::Trap(error.into())
    }
}

/// What the functions need of a store.
struct View<'a> {
    buckets: Buckets,
    table: &'a mut ResourceTable,
}

struct KeyValue;

impl HasData for KeyValue {
    type Data<'a> = View<'a>;
}

pub(crate) fn add_to_linker(linker: &mut Linker<ComponentState>) -> wasmtime::Result<()> {
    fn view(state: &mut ComponentState) -> View<'_> {
        View {
            buckets: state.guest.buckets.clone(),
            table: &mut state.table,
        }
    }
    store::add_to_linker::<_, KeyValue>(linker, view)?;
    atomics::add_to_linker::<_, KeyValue>(linker, view)?;
    batch::add_to_linker::<_, KeyValue>(linker, view)
}

impl View<'_> {
    /// Works on a bucket where waiting for a disk holds nobody up.
    async fn on<T: Send + 'static>(
        &mut self,
        bucket: &Resource<Bucket>,
        work: impl FnOnce(&dyn Store, &str) -> Outcome<T> + Send + 'static,
    ) -> Result<T, Error> {
        let Bucket { store, name } = self.table.get(bucket)?.clone();
        let work = tokio::task::spawn_blocking(move || work(&*store, &name));
        match work.await {
            Ok(outcome) => Ok(outcome?),
            Err(error) => Err(Error::Trap(error.into())),
        }
    }
}

impl store::Host for View<'_> {
    async fn open(&mut self, identifier: String) -> Result<Resource<Bucket>, Error> {
        let store = self.buckets.store()?;
        let name = match identifier.as_str() {
            "" => DEFAULT_BUCKET.to_owned(),
            _ => identifier,
        };
        if encode(&name).is_err() {
            return Err(Failure::NoSuchStore.into());
        }
        Ok(self.table.push(Bucket { store, name })?)
    }

    fn convert_error(&mut self, error: Error) -> wasmtime::Result<store::Error> {
        match error {
            Error::Told(error) => Ok(error),
            Error::Trap(error) => Err(error),
        }
    }
}

impl store::HostBucket for View<'_> {
    async fn get(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> Result<Option<Vec<u8>>, Error> {
        self.on(&bucket, move |store, bucket| store.get(bucket, &key))
            .await
    }

    async fn set(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        value: Vec<u8>,
    ) -> Result<(), Error> {
        encode(&key)?;
        self.on(&bucket, move |store, bucket| {
            store.set(bucket, vec![(key, value)])
        })
        .await
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Result<(), Error> {
        self.on(&bucket, move |store, bucket| store.delete(bucket, &[key]))
            .await
    }

    async fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Result<bool, Error> {
        let found = self.on(&bucket, move |store, bucket| store.get(bucket, &key));
        Ok(found.await?.is_some())
    }

    /// A cursor is a number of keys to leave out.
    async fn list_keys(
        &mut self,
        bucket: Resource<Bucket>,
        cursor: Option<u64>,
    ) -> Result<store::KeyResponse, Error> {
        let keys = self.on(&bucket, |store, bucket| store.keys(bucket)).await?;
        let from = usize::try_from(cursor.unwrap_or(0)).unwrap_or(usize::MAX);
        let from = from.min(keys.len());
        let to = keys.len().min(from + PAGE);
        Ok(store::KeyResponse {
            cursor: (to < keys.len()).then_some(to as u64),
            keys: keys[from..to].to_vec(),
        })
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for View<'_> {
    async fn increment(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        delta: u64,
    ) -> Result<u64, Error> {
        encode(&key)?;
        self.on(&bucket, move |store, bucket| {
            let mut sum = 0;
            store.update(bucket, &key, &mut |value| {
                sum = incremented(value, delta)?;
                Ok(sum.to_string().into_bytes())
            })?;
            Ok(sum)
        })
        .await
    }
}

impl batch::Host for View<'_> {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<Vec<Option<(String, Vec<u8>)>>, Error> {
        self.on(&bucket, move |store, bucket| {
            let mut bytes = 0;
            let found = keys.into_iter().map(|key| {
                let value = store.get(bucket, &key)?;
                bytes += value.as_ref().map_or(0, Vec::len);
                if bytes > MAX_BATCH {
                    return Err(other(format!(
                        "the values have more than {MAX_BATCH} bytes; ask for fewer"
                    )));
                }
                Ok(value.map(|value| (key, value)))
            });
            found.collect()
        })
        .await
    }

    async fn set_many(
        &mut self,
        bucket: Resource<Bucket>,
        key_values: Vec<(String, Vec<u8>)>,
    ) -> Result<(), Error> {
        for (key, _) in &key_values {
            encode(key)?;
        }
        self.on(&bucket, move |store, bucket| store.set(bucket, key_values))
            .await
    }

    async fn delete_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<(), Error> {
        self.on(&bucket, move |store, bucket| store.delete(bucket, &keys))
            .await
    }
}
