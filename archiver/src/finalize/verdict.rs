//! What to do after a write that makes an object, whatever the store answered.
//!
//! Owns the one table of that decision. It looks at what is there now, because the answer alone
//! proves nothing: a lost answer may hide a success, and a success may be somebody else's.

use crate::store::{Precondition, StoreError};

/// What the store answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Success.
    Done,
    /// Nothing that says what happened.
    Unknown,
    /// A definite no: a precondition, an upload that is gone, parts it does not like.
    No,
}

impl Reply {
    pub(crate) fn of(reply: &Result<(), StoreError>) -> Self {
        match reply {
            Ok(()) => Self::Done,
            Err(StoreError::Unknown { .. }) => Self::Unknown,
            Err(
                StoreError::Precondition { .. }
                | StoreError::NoSuchUpload { .. }
                | StoreError::Refused { .. },
            ) => Self::No,
        }
    }
}

/// What is at the key now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Nothing.
    Absent,
    /// Our object: token, length and checksum.
    Proved,
    /// It bears our token, but other bytes; may be replaced under this precondition.
    Broken(Precondition),
    /// Somebody else's object. Never touched.
    Foreign,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is done.
    Accept,
    /// Send the same call again: the same upload can't make two objects.
    Again,
    /// Send all bytes anew, under this precondition.
    StartOver(Precondition),
    /// Leave that key alone.
    Conflict,
}

/// The table.
pub(crate) fn next(reply: Reply, proof: Proof) -> Next {
    match (proof, reply) {
        (Proof::Proved, _) => Next::Accept,
        (Proof::Foreign, _) => Next::Conflict,
        (Proof::Broken(precondition), _) => Next::StartOver(precondition),
        (Proof::Absent, Reply::Unknown) => Next::Again,
        (Proof::Absent, Reply::Done | Reply::No) => Next::StartOver(Precondition::Absent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Call;

    const ALL: [Reply; 3] = [Reply::Done, Reply::Unknown, Reply::No];

    #[test]
    fn what_is_there_decides_whatever_the_store_answered() {
        for reply in ALL {
            assert_eq!(next(reply, Proof::Proved), Next::Accept);
            assert_eq!(next(reply, Proof::Foreign), Next::Conflict);
        }
    }

    #[test]
    fn an_object_that_is_ours_but_broken_is_replaced_and_nothing_else_is() {
        let seen = Precondition::Unchanged {
            etag: "e".to_owned(),
        };
        for reply in ALL {
            let broken = Proof::Broken(seen.clone());
            assert_eq!(next(reply, broken), Next::StartOver(seen.clone()));
        }
    }

    #[test]
    fn only_an_unknown_outcome_is_asked_for_again() {
        assert_eq!(next(Reply::Unknown, Proof::Absent), Next::Again);
        for reply in [Reply::No, Reply::Done] {
            let start_over = Next::StartOver(Precondition::Absent);
            assert_eq!(next(reply, Proof::Absent), start_over);
        }
    }

    #[test]
    fn a_missing_upload_is_no_unknown_outcome_and_a_lost_answer_is() {
        let lost = StoreError::Unknown {
            call: Call::Complete,
            source: "reset".into(),
        };
        assert_eq!(Reply::of(&Err(lost)), Reply::Unknown);
        let gone = StoreError::NoSuchUpload {
            call: Call::Complete,
        };
        assert_eq!(Reply::of(&Err(gone)), Reply::No);
        let exists = StoreError::Precondition { call: Call::Put };
        assert_eq!(Reply::of(&Err(exists)), Reply::No);
    }
}
