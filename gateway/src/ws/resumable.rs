//! The dialect `aircheck.v1`: JSON in text, media with agreed offsets in binary.
//!
//! Owns when media may flow: from `ready` on, until the next `take` or `stop`. Must never guess an
//! offset.

use super::{
    dialect::{Course, Dialect},
    outbox::Outbox,
    wire::Incoming,
};
use aircheck_core::{
    code::Code,
    recording::{Recording, Status},
    wire::{FromClient, FromServer, MAX_TEXT, Previous, RecordingState, Take},
};
use aircheck_proto::{
    Fault,
    ingest::{self, publish_request::Request, publish_response::Response},
};
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// The name browsers offer and get back.
pub(crate) const SUBPROTOCOL: &str = "aircheck.v1";

/// A connection that said hello.
#[derive(Debug)]
pub(crate) struct Resumable {
    stage: Stage,
    /// Largest binary message, in bytes, as the client is told.
    max_frame: u64,
}

#[derive(Debug)]
enum Stage {
    /// The client waits, or should wait, for the ready of this take.
    Agreeing { take: String },
    /// The next byte of the current take goes here.
    Sending { offset: u64 },
    /// The client said stop: it knows that nothing may follow.
    Stopping,
    /// Somebody else ended the session: the client's messages on their way are void.
    Sealed,
}

impl Resumable {
    /// Waits for the ready of the take in hello.
    pub(crate) fn new(take: String, max_frame: u64) -> Self {
        Self {
            stage: Stage::Agreeing { take },
            max_frame,
        }
    }

    fn text(&mut self, text: &Utf8Bytes) -> Result<Option<Request>, Fault> {
        let message = parse(text)?;
        match (message, &self.stage) {
            (_, Stage::Sealed) | (FromClient::Stop, Stage::Stopping) => Ok(None),
            (FromClient::Hello { .. }, _) => Err(bad("hello was said already")),
            (_, Stage::Stopping) => Err(bad("nothing may follow stop")),
            (FromClient::Take { take }, _) => {
                self.stage = Stage::Agreeing {
                    take: take.id.clone(),
                };
                Ok(Some(Request::Take(take_request(take))))
            }
            (FromClient::Marker { label, kind }, _) => {
                Ok(Some(Request::Marker(ingest::Marker { label, kind })))
            }
            (FromClient::Stop, _) => {
                self.stage = Stage::Stopping;
                Ok(Some(Request::Stop(ingest::Stop {})))
            }
        }
    }

    fn ready(&mut self, ready: ingest::Ready, outbox: &mut Outbox) {
        if let Stage::Agreeing { take } = &self.stage
            && *take == ready.take
        {
            self.stage = Stage::Sending {
                offset: ready.offset,
            };
        }
        let max_frame = match ready.max_frame {
            0 => self.max_frame,
            limit => limit.min(self.max_frame),
        };
        outbox.say(FromServer::Ready {
            session: ready.session,
            epoch: ready.epoch,
            show_id: ready.show_id,
            take: ready.take,
            offset: ready.offset,
            resumed: ready.resumed,
            recording: health(ready.recording_failed),
            grace_s: ready.grace_ms / 1000,
            max_frame,
            previous: ready.previous.map(|p| Previous {
                session: p.session,
                status: p.status,
            }),
        });
    }
}

impl Dialect for Resumable {
    fn heard(&mut self, message: Incoming) -> Result<Option<Request>, Fault> {
        let data = match message {
            Incoming::Text(text) => return self.text(&text),
            Incoming::Binary(data) => data,
        };
        match &mut self.stage {
            Stage::Sending { .. } | Stage::Sealed if data.is_empty() => Ok(None),
            Stage::Sending { offset } => {
                let chunk = ingest::Chunk {
                    offset: *offset,
                    data,
                };
                *offset += chunk.data.len() as u64;
                Ok(Some(Request::Chunk(chunk)))
            }
            Stage::Agreeing { .. } => Err(bad("media may be sent only after ready")),
            Stage::Stopping => Err(bad("media after stop can't be recorded")),
            Stage::Sealed => Ok(None),
        }
    }

    fn answered(&mut self, response: Response, outbox: &mut Outbox) -> Course {
        match response {
            Response::Ready(ready) => self.ready(ready, outbox),
            Response::Ack(ack) => outbox.say(FromServer::Ack {
                take: ack.take,
                offset: ack.offset,
                archived: ack.archived,
            }),
            Response::State(state) => outbox.say(FromServer::State {
                alarms: ingest::Alarm::words(state.alarms()),
                live: state.live,
                recording: health(state.recording_error.is_some()),
                error: state.recording_error,
                listeners: state.listeners,
                sinks: state.sinks.into_iter().map(Into::into).collect(),
            }),
            Response::Progress(progress) => {
                if !matches!(self.stage, Stage::Stopping) {
                    self.stage = Stage::Sealed;
                }
                outbox.say(FromServer::Finalizing {
                    bytes: progress.bytes,
                    archived: progress.archived,
                });
            }
            Response::End(end) => {
                if let Some(recording) = end.recording {
                    let recording = Recording::from(recording);
                    if let Some(sheet) = &recording.sheet {
                        outbox.say(FromServer::Sheet(sheet.clone()));
                    }
                    outbox.say(ended(recording));
                }
                return Course::Done;
            }
        }
        Course::On
    }

    fn farewell(&self, fault: &Fault, outbox: &mut Outbox) {
        farewell(fault, outbox);
    }
}

/// Reads a client's text.
///
/// # Errors
/// If it is no message of the dialect.
pub(crate) fn parse(text: &Utf8Bytes) -> Result<FromClient, Fault> {
    if text.len() > MAX_TEXT {
        let message = format!("A text message may have at most {MAX_TEXT} bytes.");
        return Err(Fault::new(Code::TooLarge, message));
    }
    FromClient::parse(text).map_err(|error| Fault::new(Code::BadMessage, error.to_string()))
}

/// A take as the ingest knows it.
pub(crate) fn take_request(take: Take) -> ingest::Take {
    ingest::Take {
        id: take.id,
        mime: take.mime,
        first: take.first,
        next: take.next,
    }
}

/// Tells a client why it is about to be closed, at whatever stage.
pub(crate) fn farewell(fault: &Fault, outbox: &mut Outbox) {
    outbox.say(FromServer::Error {
        code: fault.code.as_str().to_owned(),
        message: fault.message.clone(),
        retry_ms: fault.retry_ms,
    });
}

fn bad(why: &str) -> Fault {
    Fault::new(Code::BadMessage, why)
}

fn health(failed: bool) -> RecordingState {
    if failed {
        RecordingState::Failed
    } else {
        RecordingState::Recording
    }
}

fn ended(recording: Recording) -> FromServer {
    let recording = Box::new(recording);
    match recording.status {
        Status::Failed => FromServer::Failed { recording },
        Status::Recording | Status::Finalizing | Status::Archived => {
            FromServer::Archived { recording }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aircheck_proto::archiver;
    use bytes::Bytes;

    fn live(offset: u64) -> (Resumable, Outbox) {
        let (mut dialect, mut outbox) = (Resumable::new("t".into(), 1 << 20), Outbox::default());
        let ready = ingest::Ready {
            take: "t".into(),
            offset,
            ..Default::default()
        };
        assert_eq!(
            dialect.answered(Response::Ready(ready), &mut outbox),
            Course::On
        );
        assert!(outbox.pop().is_some());
        (dialect, outbox)
    }

    fn text(json: &str) -> Incoming {
        Incoming::Text(json.into())
    }

    fn binary(len: usize) -> Incoming {
        Incoming::Binary(Bytes::from(vec![7; len]))
    }

    fn offset(heard: Result<Option<Request>, Fault>) -> u64 {
        match heard {
            Ok(Some(Request::Chunk(chunk))) => chunk.offset,
            other => panic!("expected a chunk, not {other:?}"),
        }
    }

    #[test]
    fn offsets_begin_at_ready_and_count_on() {
        let (mut dialect, _) = live(1000);
        assert_eq!(offset(dialect.heard(binary(10))), 1000);
        assert_eq!(dialect.heard(binary(0)), Ok(None));
        assert_eq!(offset(dialect.heard(binary(1))), 1010);
    }

    #[test]
    fn media_before_ready_is_refused() {
        let mut dialect = Resumable::new("t".into(), 1 << 20);
        assert_eq!(
            dialect.heard(binary(1)).map_err(|f| f.code),
            Err(Code::BadMessage)
        );
    }

    #[test]
    fn media_of_a_new_take_waits_for_the_ready_of_exactly_that_take() {
        let (mut dialect, mut outbox) = live(0);
        let take = r#"{"type":"take","take":{"id":"u","mime":"audio/webm"}}"#;
        assert!(matches!(
            dialect.heard(text(take)),
            Ok(Some(Request::Take(_)))
        ));
        let late = ingest::Ready {
            take: "t".into(),
            ..Default::default()
        };
        dialect.answered(Response::Ready(late), &mut outbox);
        assert!(dialect.heard(binary(1)).is_err());
        let (mut dialect, mut outbox) = live(0);
        assert!(dialect.heard(text(take)).is_ok());
        let ready = ingest::Ready {
            take: "u".into(),
            offset: 5,
            ..Default::default()
        };
        dialect.answered(Response::Ready(ready), &mut outbox);
        assert_eq!(offset(dialect.heard(binary(1))), 5);
    }

    #[test]
    fn nothing_may_follow_stop_but_stop() {
        let (mut dialect, _) = live(0);
        let stop = r#"{"type":"stop"}"#;
        assert_eq!(
            dialect.heard(text(stop)),
            Ok(Some(Request::Stop(ingest::Stop {})))
        );
        assert_eq!(dialect.heard(text(stop)), Ok(None));
        let marker = r#"{"type":"marker","label":"x"}"#;
        for late in [binary(1), text(marker)] {
            assert_eq!(
                dialect.heard(late).map_err(|f| f.code),
                Err(Code::BadMessage)
            );
        }
    }

    #[test]
    fn messages_on_their_way_when_somebody_else_stops_are_void() {
        let (mut dialect, mut outbox) = live(0);
        dialect.answered(Response::Progress(ingest::Progress::default()), &mut outbox);
        assert_eq!(dialect.heard(binary(9)), Ok(None));
        assert_eq!(dialect.heard(text(r#"{"type":"stop"}"#)), Ok(None));
    }

    #[test]
    fn the_end_names_what_became_of_the_recording() {
        for (status, word) in [
            (
                archiver::RecordingStatus::Archived,
                r#"{"type":"archived","#,
            ),
            (archiver::RecordingStatus::Failed, r#"{"type":"failed","#),
        ] {
            let (mut dialect, mut outbox) = live(0);
            let recording = archiver::Recording {
                status: status.into(),
                ..Default::default()
            };
            let end = ingest::End {
                recording: Some(recording),
            };
            assert_eq!(
                dialect.answered(Response::End(Box::new(end)), &mut outbox),
                Course::Done
            );
            let written = outbox.pop().expect("a message").to_string();
            assert!(written.starts_with(word), "{written}");
        }
    }

    #[test]
    fn the_frame_limit_told_is_the_smaller_of_both() {
        for (theirs, told) in [(0, 1000), (500, 500), (5000, 1000)] {
            let (mut dialect, mut outbox) = (Resumable::new("t".into(), 1000), Outbox::default());
            let ready = ingest::Ready {
                take: "t".into(),
                max_frame: theirs,
                ..Default::default()
            };
            dialect.answered(Response::Ready(ready), &mut outbox);
            let written = outbox.pop().expect("a message").to_string();
            assert!(
                written.contains(&format!("\"max_frame\":{told}")),
                "{written}"
            );
        }
    }
}
