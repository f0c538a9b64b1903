//! `aircheck recordings` at a gateway that asks for a token.

use crate::support::House;
use std::process::{Command, Output};

/// Of the gateway's tests: the key, and a token of it that lasts.
const KEY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../gateway/tests/keys/ed25519.pub.pem"
);
const TOKEN: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../gateway/tests/keys/eddsa.jwt"
);
const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../core/tests/media/silence.bin"
);

fn aircheck(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aircheck"))
        .args(args)
        .output()
        .expect("the binary runs")
}

/// What it says, if it must succeed.
fn said(args: &[&str]) -> String {
    let output = aircheck(args);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {complaints}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn recordings_and_rehearsals_of_a_gateway_that_asks_for_a_token_are_listed_and_fetched() {
    let house = House::start_with(&["--auth-key-file", KEY]);
    let to = house.page.replacen("http", "ws", 1);
    let at = ["--to", &to, "--token-file", TOKEN];
    let push = ["push", FILE, "--show", "7", "--speed", "0"];
    said(&[&push[..], &at].concat());
    // Its level is that of silence, so its verdict is bad; it is archived all the same.
    said(&[&push[..], &at, &["--rehearse"]].concat());

    let refused = aircheck(&["recordings", "list", "--to", &to]);
    assert!(!refused.status.success());
    let complaint = String::from_utf8_lossy(&refused.stderr);
    assert!(complaint.contains("401"), "{complaint}");

    let list = |more: &[&str]| {
        let json = said(&[&["recordings", "list", "--json"], &at[..], more].concat());
        let items: Vec<serde_json::Value> = serde_json::from_str(&json).expect("JSON");
        items
    };
    let shows = list(&[]);
    assert_eq!((shows.len(), list(&["--rehearsals"]).len()), (1, 2));
    let table = said(&[&["recordings", "list", "--rehearsals"], &at[..]].concat());
    assert!(table.contains("7 (rehearsal)"), "{table}");

    let id = shows[0]["id"].as_str().expect("an id");
    let copy = house.folder().join("copy.webm");
    let copy = copy.to_str().expect("text");
    for action in [
        &["show", id][..],
        &["verify", id],
        &["download", id, "-o", copy],
    ] {
        said(&[&["recordings"], action, &at].concat());
    }
    // This token is no operator's: the gateway knows who asks, and says no.
    let refused = aircheck(&[&["recordings", "repair", id], &at[..]].concat());
    let complaint = String::from_utf8_lossy(&refused.stderr);
    assert!(complaint.contains("lacks the scope admin"), "{complaint}");
}
