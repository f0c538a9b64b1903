//! `WebM` and Matroska: the push parser, the writer, and what both know of EBML. Pure bytes; the
//! decision what a take means in a show is made elsewhere.

pub mod cluster;
pub mod ebml;
pub mod header;
pub mod ids;
pub mod parse;
mod resync;
pub mod tracks;
pub mod write;
