//! One object, from bytes to proof.
//!
//! Owns the calls that make it. After each that may have made it, what is there decides, by the
//! table of [`verdict`](super::verdict). Memory: two parts, one being sent and one being filled.

use super::{
    halt::{self, Halt, Stop},
    prove::prove,
    source::TakeReader,
    verdict::{Next, Proof, Reply, next},
};
use crate::{
    metrics,
    store::{Crc64, Extent, ObjectMeta, ObjectStore, PartTag, Precondition, StoreError, UploadRef},
};
use aircheck_runtime::failpoint::Failpoint;
use bytes::Bytes;

/// What came of sending an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// It is there: token, length and checksum.
    Proved(Extent),
    /// It is not, and all bytes have to be sent again.
    StartOver(Precondition),
    /// Somebody else's object is there.
    Foreign,
}

/// All parts of an object, taken by the store.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) tags: Vec<PartTag>,
    pub(crate) whole: Extent,
}

/// One object to be made.
pub(crate) struct Upload<'a> {
    pub(crate) store: &'a dyn ObjectStore,
    pub(crate) stop: &'a Stop,
    pub(crate) key: &'a str,
    pub(crate) meta: &'a ObjectMeta,
}

impl Upload<'_> {
    /// Whether the key is free, or holds what may turn out to be ours. Looked at before sending,
    /// because a store may ignore preconditions.
    pub(crate) async fn is_free(&self, bytes: u64) -> Result<bool, Halt> {
        let head = self
            .stop
            .persist("look at the key", || self.store.head(self.key))
            .await?;
        Ok(head.is_none_or(|head| match head.session {
            Some(session) => session == self.meta.session,
            None => head.bytes == bytes,
        }))
    }

    /// Whether the key is free, or holds an object that bears our token.
    pub(crate) async fn is_ours_or_free(&self) -> Result<bool, Halt> {
        let head = self
            .stop
            .persist("look at the key", || self.store.head(self.key))
            .await?;
        Ok(head.is_none_or(|head| head.session.as_ref() == Some(&self.meta.session)))
    }

    /// Makes a small object, unless it is there. Looks before it writes, because a store may ignore
    /// preconditions.
    pub(crate) async fn small(
        &self,
        body: Bytes,
        precondition: &Precondition,
    ) -> Result<Made, Halt> {
        let whole = Extent {
            bytes: body.len() as u64,
            crc: Crc64::of(&body),
        };
        match prove(self.store, self.stop, self.key, &self.meta.session, whole).await? {
            Proof::Proved => Ok(Made::Proved(whole)),
            Proof::Foreign => Ok(Made::Foreign),
            Proof::Broken(seen) => self.put(body, whole, &seen).await,
            Proof::Absent => self.put(body, whole, precondition).await,
        }
    }

    /// Makes a small object in place of an older one of ours, which may well differ.
    pub(super) async fn instead(&self, body: Bytes) -> Result<Made, Halt> {
        let head = self
            .stop
            .persist("look at the key", || self.store.head(self.key))
            .await?;
        let ours = head.filter(|head| head.session.as_ref() == Some(&self.meta.session));
        let Some(etag) = ours.and_then(|head| head.etag) else {
            return self.small(body, &Precondition::Absent).await;
        };
        let whole = Extent {
            bytes: body.len() as u64,
            crc: Crc64::of(&body),
        };
        self.put(body, whole, &Precondition::Unchanged { etag })
            .await
    }

    /// Sends a small object at once.
    async fn put(
        &self,
        body: Bytes,
        whole: Extent,
        precondition: &Precondition,
    ) -> Result<Made, Halt> {
        let mut backoff = halt::backoff();
        loop {
            self.stop.check()?;
            Failpoint::PutSending.pass();
            let reply = self
                .store
                .put(self.key, self.meta, body.clone(), precondition)
                .await;
            Failpoint::PutAnswered.pass();
            match &reply {
                Ok(()) => metrics::part_sent(whole.bytes),
                Err(_) => metrics::part_failed(),
            }
            match self.settle(&reply, whole).await? {
                Some(made) => return Ok(made),
                None => self.stop.sleep(backoff.delay()).await?,
            }
        }
    }

    /// Begins a multipart upload.
    pub(crate) async fn begin(&self) -> Result<UploadRef, Halt> {
        let create = || self.store.create_upload(self.key, self.meta);
        self.stop.persist("begin the upload", create).await
    }

    /// Sends all parts, the first of which has been read already; `None`: the upload is gone, or
    /// the store does not want it.
    pub(crate) async fn parts(
        &self,
        upload: &UploadRef,
        reader: &mut TakeReader,
        first: Bytes,
        part_bytes: usize,
        tell: impl Fn(u64),
    ) -> Result<Option<Parts>, Halt> {
        let mut parts = Parts {
            tags: Vec::new(),
            whole: Extent::NOTHING,
        };
        let mut part = first;
        let mut number = 1;
        while !part.is_empty() {
            let (bytes, crc) = (part.len() as u64, Crc64::of(&part));
            let (sent, following) = tokio::join!(
                self.part(upload, number, part, crc),
                reader.fill(part_bytes)
            );
            let Some(tag) = sent? else { return Ok(None) };
            parts.tags.push(tag);
            parts.whole.crc = parts.whole.crc.then(crc, bytes);
            parts.whole.bytes += bytes;
            tell(parts.whole.bytes);
            part = following?;
            number += 1;
        }
        Ok(Some(parts))
    }

    /// Sends one part until it is taken; `None`: it never will be.
    pub(crate) async fn part(
        &self,
        upload: &UploadRef,
        number: i32,
        body: Bytes,
        crc: Crc64,
    ) -> Result<Option<PartTag>, Halt> {
        let mut backoff = halt::backoff();
        loop {
            self.stop.check()?;
            let sent = self
                .store
                .upload_part(upload, number, body.clone(), crc)
                .await;
            let error = match sent {
                Ok(tag) => {
                    metrics::part_sent(body.len() as u64);
                    return Ok(Some(tag));
                }
                Err(error) => error,
            };
            metrics::part_failed();
            self.stop.pause(&mut backoff, "upload part", &error).await?;
            if !matches!(error, StoreError::Unknown { .. }) {
                self.abort(upload).await;
                return Ok(None);
            }
        }
    }

    /// Makes the object of its parts.
    pub(crate) async fn complete(
        &self,
        upload: &UploadRef,
        parts: &Parts,
        precondition: &Precondition,
    ) -> Result<Made, Halt> {
        let mut backoff = halt::backoff();
        let made = loop {
            self.stop.check()?;
            Failpoint::CompleteSending.pass();
            let reply = self
                .store
                .complete(upload, &parts.tags, parts.whole, precondition)
                .await;
            Failpoint::CompleteAnswered.pass();
            match self.settle(&reply, parts.whole).await? {
                Some(made) => break (made, reply.is_ok()),
                None => self.stop.sleep(backoff.delay()).await?,
            }
        };
        match made {
            (made, true) => Ok(made),
            (made, false) => {
                // Unless it was this very upload that made the object, its parts are still kept.
                self.abort(upload).await;
                Ok(made)
            }
        }
    }

    /// What a reply meant; `None`: nothing happened, send the same again.
    async fn settle(
        &self,
        reply: &Result<(), StoreError>,
        whole: Extent,
    ) -> Result<Option<Made>, Halt> {
        if let Err(error) = reply {
            tracing::warn!(
                key = self.key,
                error = halt::chain(error),
                "look what came of it"
            );
        }
        let session = &self.meta.session;
        let proof = prove(self.store, self.stop, self.key, session, whole).await?;
        Ok(match next(Reply::of(reply), proof) {
            Next::Accept => Some(Made::Proved(whole)),
            Next::Again => None,
            Next::StartOver(precondition) => Some(Made::StartOver(precondition)),
            Next::Conflict => Some(Made::Foreign),
        })
    }

    /// Drops an upload of ours that is of no use any more.
    pub(crate) async fn abort(&self, upload: &UploadRef) {
        if let Err(error) = self.store.abort(upload).await {
            tracing::info!(
                error = halt::chain(&error),
                "an upload could not be aborted"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::{Flaws, Memory};
    use aircheck_runtime::shutdown::Shutdown;

    const KEY: &str = "recordings/7/v/recording.webm";
    const MEDIA: &[u8] = b"a live show";

    /// Makes the object as a job does: again under whatever precondition the last attempt found.
    async fn make(store: &Memory) -> Made {
        let stop = Stop::new(Shutdown::new());
        let body = Bytes::from_static(MEDIA);
        let meta = ObjectMeta {
            content_type: "audio/webm".to_owned(),
            disposition: "attachment".to_owned(),
            session: "ours".to_owned(),
            epoch: 1,
            crc: Some(Crc64::of(&body)),
        };
        let upload = Upload {
            store,
            stop: &stop,
            key: KEY,
            meta: &meta,
        };
        let mut precondition = Precondition::Absent;
        loop {
            match upload
                .small(body.clone(), &precondition)
                .await
                .expect("nobody stops it")
            {
                Made::StartOver(seen) => precondition = seen,
                made => return made,
            }
        }
    }

    fn proved() -> Made {
        Made::Proved(Extent {
            bytes: MEDIA.len() as u64,
            crc: Crc64::of(MEDIA),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_foreign_object_survives_a_store_that_ignores_preconditions() {
        let flaws = Flaws {
            ignores_preconditions: true,
            ..Flaws::default()
        };
        let store = Memory::with(flaws);
        store.plant(KEY, Some("theirs"), b"something");
        assert_eq!(make(&store).await, Made::Foreign);
        assert_eq!(store.body(KEY).as_deref(), Some(b"something".as_slice()));
        assert_eq!(store.writes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flipped_bit_is_caught_and_the_bytes_are_sent_again() {
        for keeps_no_checksum in [false, true] {
            let store = Memory::with(Flaws {
                flips: 2,
                keeps_no_checksum,
                ..Flaws::default()
            });
            assert_eq!(make(&store).await, proved());
            assert_eq!(store.body(KEY).as_deref(), Some(MEDIA));
            assert_eq!(store.writes(), 3);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_reply_costs_no_second_write() {
        let store = Memory::with(Flaws {
            lost_replies: 1,
            ..Flaws::default()
        });
        assert_eq!(make(&store).await, proved());
        assert_eq!(make(&store).await, proved());
        assert_eq!(store.writes(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_loses_metadata_is_proved_by_its_bytes_and_only_by_them() {
        let store = Memory::with(Flaws {
            loses_metadata: true,
            ..Flaws::default()
        });
        assert_eq!(make(&store).await, proved());
        store.plant(KEY, None, b"other bytes");
        assert_eq!(make(&store).await, Made::Foreign);
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_of_ours_that_was_cut_short_is_replaced() {
        let store = Memory::default();
        store.plant(KEY, Some("ours"), b"a live");
        assert_eq!(make(&store).await, proved());
        assert_eq!(store.body(KEY).as_deref(), Some(MEDIA));
    }
}
