//! What a caller may do.
//!
//! Owns shows and scopes of a grant; must never know where it came from.

use aircheck_core::{code::Code, id::ShowId};
use aircheck_proto::Fault;
use std::collections::HashSet;
use tokio::time::Instant;

/// Who everybody is where no token is asked for.
const ANONYMOUS: &str = "anonymous";

/// A kind of call. None includes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// Going live, stopping, marking.
    Publish,
    /// Listening. Nothing asks for it as long as `/live` is open to everybody.
    Listen,
    /// Status, shows, recordings and their download.
    Read,
    /// Changing shows, deleting recordings.
    Admin,
}

impl Scope {
    /// The scope by its name in a token.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "publish" => Self::Publish,
            "listen" => Self::Listen,
            "read" => Self::Read,
            "admin" => Self::Admin,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Listen => "listen",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

/// All, or some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Allowed<T: Eq + std::hash::Hash> {
    All,
    Only(HashSet<T>),
}

/// What one caller may do, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Who broadcasts, as the ingest compares it.
    pub(crate) user: String,
    /// When a connection that lasts has to end; `None` is never.
    pub(crate) until: Option<Instant>,
    pub(super) shows: Allowed<String>,
    pub(super) scopes: Allowed<Scope>,
}

impl Grant {
    /// What everybody may where no token is asked for.
    pub(crate) fn anonymous() -> Self {
        Self {
            user: ANONYMOUS.to_owned(),
            until: None,
            shows: Allowed::All,
            scopes: Allowed::All,
        }
    }

    /// Lets calls of this kind pass.
    ///
    /// # Errors
    /// If the grant lacks the scope.
    pub(crate) fn permits(&self, scope: Scope) -> Result<(), Fault> {
        match &self.scopes {
            Allowed::Only(scopes) if !scopes.contains(&scope) => {
                let message = format!("The token lacks the scope {}.", scope.name());
                Err(Fault::new(Code::Forbidden, message))
            }
            Allowed::All | Allowed::Only(_) => Ok(()),
        }
    }

    /// Lets calls about this show pass.
    ///
    /// # Errors
    /// If the grant is for other shows.
    pub(crate) fn covers(&self, show: &ShowId) -> Result<(), Fault> {
        if self.covers_named(show.as_str()) {
            return Ok(());
        }
        Err(Fault::new(
            Code::Forbidden,
            "The token does not grant this show.",
        ))
    }

    /// Whether something of this show may be seen, as a service names it.
    pub(crate) fn covers_named(&self, show: &str) -> bool {
        match &self.shows {
            Allowed::All => true,
            Allowed::Only(shows) => shows.contains(show),
        }
    }

    /// Whether no show is left out.
    pub(crate) fn covers_all(&self) -> bool {
        self.shows == Allowed::All
    }
}
