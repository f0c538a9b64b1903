//! Values in query strings that sockets and the API read alike.
//!
//! Owns what counts as a flag; must never guess what a malformed one means.

use aircheck_core::code::Code;
use aircheck_proto::Fault;

/// A flag such as `force=true`. What is absent or empty is not set.
///
/// # Errors
/// `AC_BAD_MESSAGE` if it is neither true nor false.
pub(crate) fn flag(name: &str, text: Option<&str>) -> Result<bool, Fault> {
    match text {
        Some("true" | "1") => Ok(true),
        None | Some("" | "false" | "0") => Ok(false),
        Some(_) => {
            let message = format!("{name} must be true or false");
            Err(Fault::new(Code::BadMessage, message))
        }
    }
}
