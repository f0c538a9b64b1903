//! Containers, packets and the files made of them. Pure: bytes in, bytes out; it never touches a
//! file, a socket, a clock or a random number, and no input makes it panic or grow without bound.
//!
//! A take's bytes go into a [`demux::TakeReader`] and come out as [`packet::Event`]s, whatever the
//! container. [`archive::Muxer`] stitches takes into one seekable file while they arrive;
//! [`live::LiveMuxer`] makes one endless stream of them for listeners.

pub mod archive;
pub mod demux;
mod input;
pub mod limits;
pub mod live;
pub mod mp4;
pub mod ogg;
pub mod opus;
pub mod packet;
pub mod probe;
mod stitch;
pub mod survey;
mod timeline;
pub mod webm;

pub use archive::{GapPolicy, Muxer, Params, TakeStart};
pub use demux::TakeReader;
pub use live::LiveMuxer;
pub use packet::{Event, Packet, Track, TrackKind};
pub use probe::{Container, Probe, probe};
