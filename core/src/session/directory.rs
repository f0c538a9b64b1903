//! Which session holds which show.
//!
//! Owns the rule "one open session per show, and one rehearsal beside it". Must never hold sessions themselves: each belongs to
//! its own task.

use crate::id::{Seat, SessionId};
use std::collections::HashMap;
use thiserror::Error;

/// The table of open sessions.
#[derive(Debug)]
pub struct Directory {
    open: HashMap<Seat, SessionId>,
    sessions_max: usize,
}

/// Where a connection belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// The show has this session.
    Existing(SessionId),
    /// The show had none and has this one from now on; the caller must start it.
    Opened(SessionId),
}

/// No room for another session.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{sessions_max} sessions are open, which is the limit")]
pub struct Full {
    sessions_max: usize,
}

impl Directory {
    /// An empty table for at most `sessions_max` shows at once.
    #[must_use]
    pub fn new(sessions_max: usize) -> Self {
        Self {
            open: HashMap::new(),
            sessions_max,
        }
    }

    /// The session of a show; `fresh` becomes it where there is none.
    ///
    /// # Errors
    /// [`Full`].
    pub fn admit(&mut self, seat: &Seat, fresh: SessionId) -> Result<Admit, Full> {
        if let Some(session) = self.open.get(seat) {
            return Ok(Admit::Existing(*session));
        }
        if self.open.len() >= self.sessions_max {
            return Err(Full {
                sessions_max: self.sessions_max,
            });
        }
        self.open.insert(seat.clone(), fresh);
        Ok(Admit::Opened(fresh))
    }

    /// The session of a show, if it has one.
    #[must_use]
    pub fn find(&self, seat: &Seat) -> Option<SessionId> {
        self.open.get(seat).copied()
    }

    /// The session takes no more connections. A show that has moved on to another session keeps it.
    pub fn close(&mut self, seat: &Seat, session: SessionId) {
        if self.open.get(seat) == Some(&session) {
            self.open.remove(seat);
        }
    }

    /// Shows that are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether no show is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(show: &str, rehearsal: bool) -> Seat {
        let show = show.parse().expect("id");
        Seat { show, rehearsal }
    }

    #[test]
    fn a_show_has_one_session_at_a_time() {
        let mut directory = Directory::new(1);
        let show = seat("7", false);
        let [a, b] = [1u128, 2].map(|n| SessionId(n.into()));
        assert_eq!(directory.admit(&show, a), Ok(Admit::Opened(a)));
        assert_eq!(directory.admit(&show, b), Ok(Admit::Existing(a)));
        directory.close(&show, b);
        assert_eq!(directory.find(&show), Some(a));
        assert!(directory.admit(&seat("8", false), b).is_err());
        directory.close(&show, a);
        assert_eq!(directory.admit(&show, b), Ok(Admit::Opened(b)));
    }

    #[test]
    fn a_show_and_its_rehearsal_never_meet() {
        let mut directory = Directory::new(2);
        let (show, rehearsal) = (seat("7", false), seat("7", true));
        let [a, b] = [1u128, 2].map(|n| SessionId(n.into()));
        assert_eq!(directory.admit(&show, a), Ok(Admit::Opened(a)));
        assert_eq!(directory.admit(&rehearsal, b), Ok(Admit::Opened(b)));
        directory.close(&rehearsal, b);
        assert_eq!(directory.find(&show), Some(a));
        assert_eq!(directory.find(&rehearsal), None);
    }
}
