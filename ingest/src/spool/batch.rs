//! What becomes of the commands of a batch: durable, dropped, or allowed to go on.
//!
//! Owns what sessions are told. Must never tell them of bytes that are not synced.

use super::{
    Command, Marks, Shared,
    disk::Segment,
    index::{Extent, Place},
};
use aircheck_core::spool::record;
use std::sync::{Arc, atomic::Ordering};

pub(super) fn record_bytes(command: &Command) -> usize {
    match command {
        Command::Bytes { data, .. } => record::total_bytes(data.len()),
        Command::Event { json, .. } => record::event_bytes(json.len()),
        _ => 0,
    }
}

/// Adds a durable batch to the indexes and tells the sessions.
pub(super) fn publish(batch: &[Command], segment: &Arc<Segment>, placed: &[u64]) {
    for (command, position) in batch.iter().zip(placed) {
        match command {
            Command::Bytes {
                session,
                take,
                offset,
                data,
                ..
            } => {
                let extent = Extent {
                    offset: *offset,
                    place: Place::new(segment, *position, data.len()),
                };
                session.index().add_bytes(*take, extent);
                let end = offset + data.len() as u64;
                mark(session, |marks| {
                    let take = *take as usize;
                    if marks.takes.len() <= take {
                        marks.takes.resize(take + 1, 0);
                    }
                    marks.takes[take] = marks.takes[take].max(end);
                });
            }
            Command::Event { session, seq, json } => {
                let place = Place::new(segment, *position, json.len());
                session.index().add_event(place);
                mark(session, |marks| marks.events = marks.events.max(seq + 1));
            }
            _ => {}
        }
    }
}

/// Sessions learn that their bytes are dropped, what they have queued since included.
pub(super) fn fail(batch: &[Command], reason: &str) {
    let reason: Arc<str> = reason.into();
    for command in batch {
        let session = match command {
            Command::Bytes { session, run, .. } => {
                session.run.fetch_max(run + 1, Ordering::Relaxed);
                session
            }
            Command::Event { session, .. } => session,
            _ => continue,
        };
        mark(session, |marks| marks.failed = Some(Arc::clone(&reason)));
    }
}

/// A session may go on.
pub(super) fn restart(session: &Shared, run: u32) {
    session.run.fetch_max(run, Ordering::Relaxed);
    mark(session, |marks| {
        marks.failed = None;
        marks.run = run;
    });
}

fn mark(session: &Shared, change: impl FnOnce(&mut Marks)) {
    session.marks.send_modify(change);
}
