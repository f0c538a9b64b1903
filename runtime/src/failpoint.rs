//! Named places where a process can be made to die, so that tests see what a crash there leaves.
//!
//! Owns the list of places and the dying. Without the feature `failpoints`, which only the end-to-end
//! tests turn on, [`Failpoint::pass`] is empty; with it, and not armed, one atomic load. Must never do anything else
//! than let pass or kill.

/// Names every place once, for the enum, the list and the environment.
macro_rules! places {
    ($($(#[$doc:meta])* $place:ident = $name:literal,)*) => {
        /// A place in the code; by the name of the step that has just been done, or, where it says
        /// so, is about to be done.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Failpoint {
            $($(#[$doc])* $place,)*
        }

        impl Failpoint {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$place,)*];

            /// As the environment names it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$place => $name,)*
                }
            }
        }
    };
}

places! {
    /// Gateway: a broadcaster asks for a WebSocket and has no answer yet.
    GatewayAccepted = "gateway-accepted",
    /// Gateway: the client's hello was understood; no ingest knows of it.
    GatewayHello = "gateway-hello",
    /// Gateway: the ingest has taken the broadcaster, who does not know it yet.
    GatewayPublished = "gateway-published",
    /// Gateway: bytes of a client are in the queue towards the ingest.
    GatewayForwarded = "gateway-forwarded",
    /// Gateway: an answer of the ingest was read and not yet passed on.
    GatewayAnswered = "gateway-answered",
    /// Ingest: a connection has said what it wants.
    PublishOpened = "publish-opened",
    /// Ingest: a session exists, in memory only.
    SessionOpened = "session-opened",
    /// Ingest: a connection was given its epoch; the client does not know.
    SessionConnected = "session-connected",
    /// Ingest: bytes were accepted, and neither side of the tee has them.
    ChunkAccepted = "chunk-accepted",
    /// Ingest: bytes are in the spool's queue.
    ChunkAppended = "chunk-appended",
    /// Spool: a segment's file is there, its name not yet durable.
    SegmentCreated = "segment-created",
    /// Spool: a batch is written and not synced.
    BatchWritten = "batch-written",
    /// Spool: a batch is synced, and no session knows.
    BatchSynced = "batch-synced",
    /// Spool: the sessions were told of a batch.
    BatchPublished = "batch-published",
    /// Ingest: an ack is on its way.
    AckSent = "ack-sent",
    /// Ingest: the wish to end was heard, and nothing done.
    StopHeard = "stop-heard",
    /// Ingest: the session is sealed, in memory only.
    SessionSealed = "session-sealed",
    /// Ingest: the seal is durable, and the archiver not asked.
    SealDurable = "seal-durable",
    /// Ingest: the archiver is about to be asked for the archive.
    FinalizeSent = "finalize-sent",
    /// Ingest: the archive is there, and the session does not know.
    FinalizeAnswered = "finalize-answered",
    /// Ingest: the client was told the end, which is not durable here.
    EndSaid = "end-said",
    /// Ingest: the end is durable, and the spool still has all bytes.
    DoneDurable = "done-durable",
    /// Spool: a session's bytes are forgotten, its segments still there.
    SessionForgotten = "session-forgotten",
    /// Spool: segments are removed, which is not yet durable.
    SegmentsRemoved = "segments-removed",
    /// Spool: what sessions need of an old segment is copied, and its new place not yet known.
    KeptCopied = "kept-copied",
    /// Spool: it is known where the copies are, and the old segment still there.
    KeptMoved = "kept-moved",
    /// Spool: at start, all segments are synced and none is read.
    RecoveryBegun = "recovery-begun",
    /// Ingest: at start, sessions are recovered, and the port is not open.
    RecoveryDone = "recovery-done",
    /// Ingest: bytes of the spool are about to go to the archiver.
    SpoolRead = "spool-read",
    /// Archiver: a live session's row is there.
    RowBegun = "row-begun",
    /// Archiver: a live session is claimed.
    LiveClaimed = "live-claimed",
    /// Archiver: a live session's claim was let go of.
    LiveReleased = "live-released",
    /// Archiver: an upload was begun, and no row names it.
    UploadCreated = "upload-created",
    /// Archiver: the row names an upload without parts.
    UploadNoted = "upload-noted",
    /// Archiver: the store has a part, and the row does not say so.
    PartSent = "part-sent",
    /// Archiver: the row says which parts the store has.
    PartsNoted = "parts-noted",
    /// Archiver: a session's row is `finalizing`.
    RowSealed = "row-sealed",
    /// Archiver: a sealed session is claimed.
    Claimed = "claimed",
    /// Archiver: the row names the objects that are about to be made.
    Planned = "planned",
    /// Archiver: all parts are there, and Complete is about to be sent.
    CompleteSending = "complete-sending",
    /// Archiver: Complete was answered, and nobody looked what came of it.
    CompleteAnswered = "complete-answered",
    /// Archiver: a small object is about to be sent.
    PutSending = "put-sending",
    /// Archiver: a small object was sent, and nobody looked what came of it.
    PutAnswered = "put-answered",
    /// Archiver: an object was proved, and the row does not say so.
    ObjectProved = "object-proved",
    /// Archiver: the manifest lies beside the objects.
    ManifestPut = "manifest-put",
    /// Archiver: the row is final, and nobody was told.
    RowFinal = "row-final",
}

impl Failpoint {
    /// Lets pass, unless the environment says that the process dies here: `AIRCHECK_FAILPOINT=name:n`
    /// kills it at the n-th time, from 1.
    #[inline]
    pub fn pass(self) {
        #[cfg(feature = "failpoints")]
        armed::pass(self);
    }
}

#[cfg(feature = "failpoints")]
mod armed {
    use super::Failpoint;
    use rustix::process::{Signal, getpid, kill_process};
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    };

    const VARIABLE: &str = "AIRCHECK_FAILPOINT";

    /// Where the process dies, and how many times it still gets by.
    #[derive(Debug)]
    pub(super) struct Armed {
        place: Failpoint,
        left: AtomicU64,
    }

    impl Armed {
        /// `None`: no such place, or no such time.
        pub(super) fn parse(text: &str) -> Option<Self> {
            let (name, nth) = text.split_once(':')?;
            let place = Failpoint::ALL.iter().find(|place| place.name() == name)?;
            let left = nth.parse().ok().filter(|nth| *nth > 0)?;
            Some(Self {
                place: *place,
                left: AtomicU64::new(left),
            })
        }

        /// Whether this time is the one.
        pub(super) fn is_due(&self, place: Failpoint) -> bool {
            self.place == place && self.left.fetch_sub(1, Ordering::Relaxed) == 1
        }
    }

    /// Panics if the variable names no place: a test that arms nothing must not succeed.
    pub(super) fn pass(place: Failpoint) {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        let armed = ARMED.get_or_init(|| {
            let text = std::env::var(VARIABLE).ok()?;
            Some(Armed::parse(&text).unwrap_or_else(|| panic!("{VARIABLE}={text} is no failpoint")))
        });
        if armed.as_ref().is_some_and(|armed| armed.is_due(place)) {
            die();
        }
    }

    /// As if by `kill -9`: no handler, no destructor, no flush.
    fn die() -> ! {
        loop {
            if kill_process(getpid(), Signal::KILL).is_err() {
                std::process::abort();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_name_is_one_places() {
        let names: HashSet<_> = Failpoint::ALL.iter().map(|place| place.name()).collect();
        assert_eq!(names.len(), Failpoint::ALL.len());
    }

    #[cfg(feature = "failpoints")]
    #[test]
    fn the_nth_time_at_the_named_place_is_due_and_no_other() {
        let armed = armed::Armed::parse("ack-sent:2").expect("a place and a time");
        let times = [
            Failpoint::AckSent,
            Failpoint::StopHeard,
            Failpoint::AckSent,
            Failpoint::AckSent,
        ];
        assert_eq!(
            times.map(|place| armed.is_due(place)),
            [false, false, true, false]
        );
        for wrong in ["ack-sent", "ack-sent:0", "ack:1", ""] {
            assert!(armed::Armed::parse(wrong).is_none(), "{wrong}");
        }
    }
}
