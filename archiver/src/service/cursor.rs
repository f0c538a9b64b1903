//! Cursors of lists: opaque to clients.
//!
//! Owns their spelling. One stands for a place in the order, so a page stays right whatever is
//! inserted or deleted in between.

use crate::db::RecordingRow;
use aircheck_core::{code::Code, id::SessionId};
use aircheck_proto::Fault;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// The place right after a row.
pub(super) fn write(row: &RecordingRow) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}:{}", row.started_at, row.id))
}

/// `started_at` and id of the row before the page.
///
/// # Errors
/// `AC_BAD_MESSAGE`, if it is no cursor of ours.
pub(super) fn read(text: &str) -> Result<(i64, String), Fault> {
    parse(text).ok_or_else(|| Fault::new(Code::BadMessage, "after is no cursor"))
}

fn parse(text: &str) -> Option<(i64, String)> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (started_at, id) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
    let id: SessionId = id.parse().ok()?;
    Some((started_at.parse().ok()?, id.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_garbage_does_not() {
        let id = "01JDA0000000000000000000AB";
        let cursor = URL_SAFE_NO_PAD.encode(format!("1795464900000:{id}"));
        assert_eq!(read(&cursor), Ok((1_795_464_900_000, id.to_owned())));
        for bad in [
            "",
            "x",
            "!!",
            &URL_SAFE_NO_PAD.encode("1:2"),
            &URL_SAFE_NO_PAD.encode("abc"),
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
