//! Commands against a server, each from outside: what they do to it, and what they say.

mod bench;
mod recordings;
mod support;
mod tls;
