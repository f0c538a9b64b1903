//! The ingest over real gRPC, with an archiver that remembers what it was asked.

mod publish;
mod rehearsal;
mod sinks;
mod support;
