//! The media heart against recordings of real browsers: reading, archiving, live, and damage.

#[path = "media/archive.rs"]
mod archive;
#[path = "media/damage.rs"]
mod damage;
#[path = "media/demux.rs"]
mod demux;
#[path = "media/live.rs"]
mod live;
#[path = "media/support.rs"]
mod support;
