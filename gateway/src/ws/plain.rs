//! The plain dialect: bytes, `connected`, `stop` and `error: ...`.
//!
//! Owns its words; must never ask more of a client than to send bytes.

use super::{
    dialect::{Course, Dialect},
    outbox::Outbox,
    wire::Incoming,
};
use aircheck_core::code::Code;
use aircheck_proto::{
    Fault,
    ingest::{Chunk, Stop, publish_request::Request, publish_response::Response},
};

/// A plain connection that is live.
#[derive(Debug)]
pub(crate) struct Plain {
    offset: u64,
    stage: Stage,
    /// Ends with a sheet.
    rehearsal: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Live,
    /// The client said stop.
    Stopping,
}

impl Plain {
    /// Begins at the offset of the ingest's ready.
    pub(crate) fn new(offset: u64, rehearsal: bool) -> Self {
        Self {
            offset,
            stage: Stage::Live,
            rehearsal,
        }
    }
}

impl Dialect for Plain {
    fn heard(&mut self, message: Incoming) -> Result<Option<Request>, Fault> {
        match (message, self.stage) {
            (Incoming::Text(text), _) if text.trim() == "stop" => {
                let first = self.stage == Stage::Live;
                self.stage = Stage::Stopping;
                Ok(first.then_some(Request::Stop(Stop {})))
            }
            (Incoming::Text(_), _) => Err(Fault::new(
                Code::BadMessage,
                "The only text a client may send is stop.",
            )),
            (Incoming::Binary(_), Stage::Stopping) => Err(Fault::new(
                Code::BadMessage,
                "Media after stop can't be recorded.",
            )),
            (Incoming::Binary(data), Stage::Live) if data.is_empty() => Ok(None),
            (Incoming::Binary(data), Stage::Live) => {
                let offset = self.offset;
                self.offset += data.len() as u64;
                Ok(Some(Request::Chunk(Chunk { offset, data })))
            }
        }
    }

    /// Progress comes between seal and end only, whoever stopped the show.
    fn answered(&mut self, response: Response, outbox: &mut Outbox) -> Course {
        match response {
            Response::Progress(_) if self.rehearsal => Course::On,
            Response::Progress(_) => Course::Done,
            Response::End(end) => {
                if let Some(sheet) = end.recording.and_then(|recording| recording.sheet) {
                    outbox.text(format!("sheet: {sheet}"));
                }
                Course::Done
            }
            Response::Ready(_) | Response::Ack(_) | Response::State(_) => Course::On,
        }
    }

    fn farewell(&self, fault: &Fault, outbox: &mut Outbox) {
        outbox.text(format!("error: {}", fault.message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aircheck_proto::{
        archiver::Recording,
        ingest::{Ack, End, Progress},
    };
    use bytes::Bytes;

    fn binary(data: &'static [u8]) -> Incoming {
        Incoming::Binary(Bytes::from_static(data))
    }

    #[test]
    fn offsets_count_on_from_ready() {
        let mut plain = Plain::new(100, false);
        for (data, at) in [(b"abc".as_slice(), 100), (b"de", 103), (b"f", 105)] {
            let Ok(Some(Request::Chunk(chunk))) = plain.heard(binary(data)) else {
                panic!("a chunk");
            };
            assert_eq!(chunk.offset, at);
        }
        assert_eq!(plain.heard(binary(b"")), Ok(None));
    }

    #[test]
    fn stop_is_said_once_and_nothing_follows_it() {
        let mut plain = Plain::new(0, false);
        assert_eq!(
            plain.heard(Incoming::Text("stop".into())),
            Ok(Some(Request::Stop(Stop {})))
        );
        assert_eq!(plain.heard(Incoming::Text("stop".into())), Ok(None));
        assert_eq!(
            plain.heard(binary(b"x")).map_err(|f| f.code),
            Err(Code::BadMessage)
        );
    }

    #[test]
    fn other_text_is_refused() {
        let fault = Plain::new(0, false)
            .heard(Incoming::Text("hello".into()))
            .map_err(|f| f.code);
        assert_eq!(fault, Err(Code::BadMessage));
    }

    #[test]
    fn a_sealed_spool_is_the_end_and_an_ack_is_not() {
        let (mut plain, mut outbox) = (Plain::new(0, false), Outbox::default());
        let ack = Response::Ack(Ack::default());
        assert_eq!(plain.answered(ack, &mut outbox), Course::On);
        assert_eq!(
            plain.answered(Response::Progress(Progress::default()), &mut outbox),
            Course::Done
        );
        assert!(outbox.pop().is_none());
    }

    #[test]
    fn a_rehearsal_ends_with_its_sheet() {
        let (mut plain, mut outbox) = (Plain::new(0, true), Outbox::default());
        let sealed = Response::Progress(Progress::default());
        assert_eq!(plain.answered(sealed, &mut outbox), Course::On);
        let recording = Recording {
            sheet: Some("{}".to_owned()),
            ..Recording::default()
        };
        let end = Response::End(Box::new(End {
            recording: Some(recording),
        }));
        assert_eq!(plain.answered(end, &mut outbox), Course::Done);
        let said = outbox.pop().and_then(|said| said.into_text().ok());
        assert_eq!(said.as_deref(), Some("sheet: {}"));
    }
}
