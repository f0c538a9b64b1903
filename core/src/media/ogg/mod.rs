//! Ogg with Opus, as Firefox records it: pages in, packets with timestamps out. Knows one logical
//! stream at a time; others in the same file are passed over.

mod page;
mod reader;

pub use reader::OggReader;
