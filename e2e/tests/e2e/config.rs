//! Settings that can't work are refused at start, with a word about which, and not at the first show.

use aircheck_e2e::{process::aircheck, wait::soon};
use tokio::process::Command;

const INGEST: &[&str] = &["ingest", "--spool-dir", "spool"];
const GATEWAY: &[&str] = &["gateway", "--ingest", "http://i", "--archiver", "http://a"];
const ARCHIVER: &[&str] = &[
    "archiver",
    "--database-url",
    "sqlite://db?mode=rwc",
    "--s3-bucket",
    "b",
];

/// What is right, what is wrong beside it, and the word that the complaint has.
#[rustfmt::skip]
const CASES: &[(&[&str], &[&str], &str)] = &[
    (&["gateway"], &[], "--ingest"),
    (&["ingest"], &[], "--spool-dir"),
    (&["archiver"], &[], "--database-url"),
    (GATEWAY, &["--grace", "31m"], "grace"),
    (GATEWAY, &["--listen", "nowhere"], "listen"),
    (GATEWAY, &["--auth-key-file", "no-such-file"], "no-such-file"),
    (INGEST, &["--archiver", "not a url"], "not a url"),
    (INGEST, &["--archiver", "archiver:7002"], "archiver:7002"),
    (INGEST, &["--segment-size", "1KiB"], "segment"),
    (INGEST, &["--live-sink", "ftp://host/x"], "live-sink"),
    (INGEST, &["--advertise", "ingest-0"], "ingest-0"),
    (GATEWAY, &["--ingest", "ingest:7001"], "ingest:7001"),
    (ARCHIVER, &["--part-size", "1MiB"], "part"),
    (ARCHIVER, &["--claim-lease", "10ms"], "claims"),
    (ARCHIVER, &["--presign-ttl", "8d"], "presign"),
    (ARCHIVER, &["--database-url", "mysql://host/db"], "database"),
    (ARCHIVER, &[], "--s3-access-key-id"),
];

#[tokio::test]
async fn settings_that_can_not_work_end_the_start_and_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (right, wrong, word) in CASES {
        // Repeated flags are refused as such, so that the wrong one replaces the right one.
        let mut arguments = right.to_vec();
        match wrong
            .first()
            .and_then(|flag| right.iter().position(|known| known == flag))
        {
            Some(at) => arguments[at + 1] = wrong[1],
            None => arguments.extend(*wrong),
        }
        let mut command = Command::new(aircheck());
        command
            .args(&arguments)
            .env_clear()
            .current_dir(folder.path())
            .kill_on_drop(true);
        let output = soon(&format!("{arguments:?} is refused"), command.output()).await;
        let output = output.expect("run aircheck");
        let complaint = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert!(!output.status.success(), "{arguments:?}");
        assert!(complaint.contains(word), "{arguments:?}: {complaint}");
    }
}
