//! Bytes of takes that are objects of the store, exactly as they came.
//!
//! Owns which object holds which take. Must never write.

use crate::{
    db::StoredObject,
    store::{ObjectStore, StoreError},
};
use bytes::Bytes;
use std::sync::Arc;

/// Most bytes that are read at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// The raw takes of a session.
#[derive(Clone, Debug)]
pub(crate) struct TakeObjects {
    store: Arc<dyn ObjectStore>,
    objects: Arc<[StoredObject]>,
}

impl TakeObjects {
    /// Takes among these objects of `store`.
    pub(super) fn new(store: Arc<dyn ObjectStore>, objects: &[StoredObject]) -> Self {
        Self {
            store,
            objects: objects.into(),
        }
    }

    /// At most `limit` bytes of a take, from byte `from` of those that exist; `None`: there are none.
    ///
    /// # Errors
    /// If the store does not give them.
    pub(super) async fn read(
        &self,
        take: u32,
        from: u64,
        limit: u64,
    ) -> Result<Option<Bytes>, StoreError> {
        let mut objects = self.objects.iter();
        let Some(object) = objects.find(|object| object.take == Some(take)) else {
            return Ok(None);
        };
        if from >= object.bytes {
            return Ok(None);
        }
        let read = self
            .store
            .read_range(&object.key, from, limit.min(PIECE_BYTES))
            .await?;
        Ok(read.filter(|bytes| !bytes.is_empty()))
    }
}
