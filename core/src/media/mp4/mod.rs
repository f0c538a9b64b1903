//! Fragmented MP4 as browsers record it: boxes in, packets out. Files whose sample tables are
//! apart from the media are refused; they cannot be read while they arrive.

mod boxes;
mod fragment;
mod init;
mod reader;

pub use reader::Mp4Reader;
