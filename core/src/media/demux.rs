//! One reader over the three containers. Feed it the bytes of a take in any pieces, take events
//! out; it hides the container and nothing else.

use super::mp4::Mp4Reader;
use super::ogg::OggReader;
use super::packet::Event;
use super::probe::Container;
use super::webm::parse::Parser;

/// Reads one take.
///
/// After each [`push`](Self::push), [`skip`](Self::skip) and [`finish`](Self::finish), call
/// [`poll`](Self::poll) until it returns `None`. What is buffered then is less than one element,
/// page or box, each of them capped in [`limits`](super::limits).
#[derive(Debug)]
pub struct TakeReader {
    format: Format,
}

#[derive(Debug)]
enum Format {
    WebM(Parser),
    Ogg(OggReader),
    Mp4(Mp4Reader),
}

impl TakeReader {
    /// A reader at the first byte of a take of this container.
    #[must_use]
    pub fn new(container: Container) -> Self {
        let format = match container {
            Container::WebM => Format::WebM(Parser::new()),
            Container::Ogg => Format::Ogg(OggReader::new()),
            Container::Mp4 => Format::Mp4(Mp4Reader::new()),
        };
        Self { format }
    }

    /// Adds the next bytes of the take.
    pub fn push(&mut self, bytes: &[u8]) {
        match &mut self.format {
            Format::WebM(parser) => parser.push(bytes),
            Format::Ogg(reader) => reader.push(bytes),
            Format::Mp4(reader) => reader.push(bytes),
        }
    }

    /// Passes over a known hole of `lost_bytes` in the take.
    pub fn skip(&mut self, lost_bytes: u64) {
        match &mut self.format {
            Format::WebM(parser) => parser.skip(lost_bytes),
            Format::Ogg(reader) => reader.skip(lost_bytes),
            Format::Mp4(reader) => reader.skip(lost_bytes),
        }
    }

    /// Declares the take complete; an incomplete rest is reported as lost.
    pub fn finish(&mut self) {
        match &mut self.format {
            Format::WebM(parser) => parser.finish(),
            Format::Ogg(reader) => reader.finish(),
            Format::Mp4(reader) => reader.finish(),
        }
    }

    /// Bytes that are held until more of their element, page or box come; after `None` from
    /// [`poll`](Self::poll), no more than the largest cap in [`limits`](super::limits).
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        match &self.format {
            Format::WebM(parser) => parser.held_bytes(),
            Format::Ogg(reader) => reader.held_bytes(),
            Format::Mp4(reader) => reader.held_bytes(),
        }
    }

    /// The next event; `None` if more bytes are needed.
    pub fn poll(&mut self) -> Option<Event> {
        match &mut self.format {
            Format::WebM(parser) => parser.poll(),
            Format::Ogg(reader) => reader.poll(),
            Format::Mp4(reader) => reader.poll(),
        }
    }
}
