//! The proof that an object is ours and whole.
//!
//! Owns what counts as one: token, length, checksum. Existence counts for nothing.

use super::{
    halt::{Halt, Stop},
    verdict::Proof,
};
use crate::store::{Extent, Head, ObjectStore, Precondition};

/// Looks at what is at `key` and compares it with what `session` should have there. A store that
/// keeps no checksum of the whole object is read back.
pub(crate) async fn prove(
    store: &dyn ObjectStore,
    stop: &Stop,
    key: &str,
    session: &str,
    whole: Extent,
) -> Result<Proof, Halt> {
    let head = stop
        .persist("look at the object", || store.head(key))
        .await?;
    let Some(head) = head else {
        return Ok(Proof::Absent);
    };
    let ours = match &head.session {
        Some(token) if token == session => true,
        Some(_) => return Ok(Proof::Foreign),
        // Stores exist that keep an object's bytes but lose its metadata, or write them one after
        // the other. Equal bytes are the archive, whoever wrote them.
        None => false,
    };
    let same = head.bytes == whole.bytes && same_bytes(store, stop, key, &head, whole).await?;
    Ok(match (ours, same) {
        (_, true) => Proof::Proved,
        (true, false) => Proof::Broken(replacing(head)),
        (false, false) => Proof::Foreign,
    })
}

async fn same_bytes(
    store: &dyn ObjectStore,
    stop: &Stop,
    key: &str,
    head: &Head,
    whole: Extent,
) -> Result<bool, Halt> {
    if let Some(crc) = head.crc {
        return Ok(crc == whole.crc);
    }
    let read = stop
        .persist("read the object back", || store.read_back(key))
        .await?;
    Ok(read == Some(whole))
}

fn replacing(head: Head) -> Precondition {
    tracing::error!(
        session_id = head.session,
        bytes = head.bytes,
        "the store holds other bytes under our token; they are sent again"
    );
    head.etag.map_or(Precondition::Unconditional, |etag| {
        Precondition::Unchanged { etag }
    })
}
