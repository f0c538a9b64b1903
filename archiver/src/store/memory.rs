//! An object store in memory, for unit tests, that can be as lax or as forgetful as real ones are.

use super::{
    Call, Crc64, Extent, Head, Listed, ObjectMeta, ObjectStore, OpenUpload, PartTag, Precondition,
    StoreError, UploadRef,
};
use async_trait::async_trait;
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

/// How a store differs from the best one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flaws {
    /// Takes writes whatever their precondition says.
    pub(crate) ignores_preconditions: bool,
    /// Does not tell whole-object checksums.
    pub(crate) keeps_no_checksum: bool,
    /// Does not tell metadata.
    pub(crate) loses_metadata: bool,
    /// Flips a bit in so many writes to come.
    pub(crate) flips: u32,
    /// Loses the replies of so many writes to come, after they took effect.
    pub(crate) lost_replies: u32,
}

#[derive(Clone, Debug)]
struct Stored {
    body: Bytes,
    session: Option<String>,
    etag: String,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Stored>,
    flaws: Flaws,
    writes: u32,
}

/// Single PUTs only; multipart runs against a real server in the integration tests.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<State>);

impl Memory {
    pub(crate) fn with(flaws: Flaws) -> Self {
        Self(Mutex::new(State {
            flaws,
            ..State::default()
        }))
    }

    pub(crate) fn plant(&self, key: &str, session: Option<&str>, body: &'static [u8]) {
        let session = session.map(str::to_owned);
        let stored = Stored {
            body: Bytes::from_static(body),
            session,
            etag: "planted".into(),
        };
        self.state().objects.insert(key.to_owned(), stored);
    }

    pub(crate) fn body(&self, key: &str) -> Option<Bytes> {
        self.state()
            .objects
            .get(key)
            .map(|stored| stored.body.clone())
    }

    /// Writes that took effect.
    pub(crate) fn writes(&self) -> u32 {
        self.state().writes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic while locked")
    }
}

fn flipped(body: &Bytes) -> Bytes {
    let mut bytes = body.to_vec();
    if let Some(first) = bytes.first_mut() {
        *first ^= 1;
    }
    bytes.into()
}

/// Takes one from a counter, if there is one.
fn due(counter: &mut u32) -> bool {
    let is_due = *counter > 0;
    *counter = counter.saturating_sub(1);
    is_due
}

#[async_trait]
impl ObjectStore for Memory {
    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        let state = self.state();
        Ok(state.objects.get(key).map(|stored| Head {
            bytes: stored.body.len() as u64,
            session: stored
                .session
                .clone()
                .filter(|_| !state.flaws.loses_metadata),
            crc: (!state.flaws.keeps_no_checksum).then(|| Crc64::of(&stored.body)),
            etag: Some(stored.etag.clone()),
        }))
    }

    async fn put(
        &self,
        key: &str,
        meta: &ObjectMeta,
        body: Bytes,
        precondition: &Precondition,
    ) -> Result<(), StoreError> {
        let mut state = self.state();
        let there = state.objects.get(key);
        let holds = match precondition {
            Precondition::Absent => there.is_none(),
            Precondition::Unchanged { etag } => there.is_some_and(|s| s.etag == *etag),
            Precondition::Unconditional => true,
        };
        if !holds && !state.flaws.ignores_preconditions {
            return Err(StoreError::Precondition { call: Call::Put });
        }
        let body = if due(&mut state.flaws.flips) {
            flipped(&body)
        } else {
            body
        };
        state.writes += 1;
        let etag = state.writes.to_string();
        let stored = Stored {
            body,
            session: Some(meta.session.clone()),
            etag,
        };
        state.objects.insert(key.to_owned(), stored);
        if due(&mut state.flaws.lost_replies) {
            return Err(StoreError::Unknown {
                call: Call::Put,
                source: "reset".into(),
            });
        }
        Ok(())
    }

    async fn create_upload(&self, _: &str, _: &ObjectMeta) -> Result<UploadRef, StoreError> {
        Err(lacking(Call::CreateUpload))
    }

    async fn upload_part(
        &self,
        _: &UploadRef,
        _: i32,
        _: Bytes,
        _: Crc64,
    ) -> Result<PartTag, StoreError> {
        Err(lacking(Call::UploadPart))
    }

    async fn complete(
        &self,
        _: &UploadRef,
        _: &[PartTag],
        _: Extent,
        _: &Precondition,
    ) -> Result<(), StoreError> {
        Err(lacking(Call::Complete))
    }

    async fn abort(&self, _: &UploadRef) -> Result<(), StoreError> {
        Ok(())
    }

    async fn fetch(
        &self,
        key: &str,
        sink: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<Option<Extent>, StoreError> {
        let body = self.body(key);
        if let Some(body) = &body {
            sink.write_all(body).await.expect("room in memory");
        }
        Ok(body.map(|body| Extent {
            bytes: body.len() as u64,
            crc: Crc64::of(&body),
        }))
    }

    async fn read(&self, key: &str, _: u64) -> Result<Option<Bytes>, StoreError> {
        Ok(self.body(key))
    }

    async fn list(&self, _: &str, _: Option<&str>) -> Result<Vec<Listed>, StoreError> {
        Err(lacking(Call::List))
    }

    async fn list_uploads(&self, _: &str) -> Result<Vec<OpenUpload>, StoreError> {
        Err(lacking(Call::ListUploads))
    }

    async fn read_range(
        &self,
        key: &str,
        from: u64,
        limit: u64,
    ) -> Result<Option<Bytes>, StoreError> {
        Ok(self.body(key).map(|body| {
            let at =
                |offset: u64| usize::try_from(offset).map_or(body.len(), |o| o.min(body.len()));
            body.slice(at(from)..at(from.saturating_add(limit)))
        }))
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.state().objects.remove(key);
        Ok(())
    }

    async fn presign(
        &self,
        key: &str,
        _: &str,
        _: &str,
        _: Duration,
    ) -> Result<String, StoreError> {
        Ok(format!("memory:{key}"))
    }
}

/// What this store does not do.
fn lacking(call: Call) -> StoreError {
    StoreError::Refused {
        call,
        status: 501,
        code: "NotImplemented".to_owned(),
    }
}
