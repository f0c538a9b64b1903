//! Channels to ingests, one an address.
//!
//! Owns how many are kept. A channel connects when it is first used and again whenever it has to, so
//! must never be closed for an ingest that is away; deadlines are those of the calls.

use crate::finalize::Ingest;
use aircheck_core::code::Code;
use aircheck_proto::Fault;
use aircheck_runtime::grpc;
use std::sync::{Arc, Mutex, PoisonError};

/// Most channels that are kept; installations have a few ingests. The address that was not named for
/// the longest time goes first, and whoever still reads from it keeps its channel.
const KEPT_MAX: usize = 64;
/// An ingest sends spool messages of at most 1 MiB; what is far beyond is no ingest.
const MESSAGE_MAX: usize = 16 << 20;

/// What is kept, the address that was named last in front.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ingests(Arc<Mutex<Vec<(String, Ingest)>>>);

impl Ingests {
    /// A client of the ingest at this address; all of one address share a connection.
    ///
    /// # Errors
    /// `AC_BAD_MESSAGE`, if it is no address.
    pub(super) fn at(&self, url: &str) -> Result<Ingest, Fault> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.iter().position(|(address, _)| address == url);
        let (address, ingest) = match known.map(|index| kept.remove(index)) {
            Some(known) => known,
            None => (url.to_owned(), connected(url)?),
        };
        kept.insert(0, (address, ingest.clone()));
        kept.truncate(KEPT_MAX);
        Ok(ingest)
    }
}

fn connected(url: &str) -> Result<Ingest, Fault> {
    let channel =
        grpc::channel(url).map_err(|error| Fault::new(Code::BadMessage, error.to_string()))?;
    Ok(Ingest::new(channel).max_decoding_message_size(MESSAGE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn as_many_channels_are_kept_as_may_be_and_those_in_use_go_last() {
        let ingests = Ingests::default();
        let url = |number: usize| format!("http://10.0.0.1:{number}");
        for number in 1..=KEPT_MAX * 2 {
            ingests.at(&url(number)).expect("an address");
            ingests.at(&url(1)).expect("an address");
        }
        let kept = ingests.0.lock().expect("no panic while locked");
        let is_kept = |number| kept.iter().any(|(address, _)| *address == url(number));
        assert_eq!(kept.len(), KEPT_MAX);
        assert!(is_kept(1) && is_kept(KEPT_MAX * 2) && !is_kept(2));
    }

    #[tokio::test]
    async fn what_is_no_address_is_refused_and_not_kept() {
        let ingests = Ingests::default();
        for bad in ["", "ingest:7001", "https://ingest:7001"] {
            let refused = ingests.at(bad).map(drop).expect_err("refused");
            assert_eq!(refused.code, Code::BadMessage, "{bad}");
        }
        assert!(ingests.0.lock().expect("no panic while locked").is_empty());
    }
}
