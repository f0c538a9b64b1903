//! The binary from outside: what it says of itself, and how it refuses.

use std::{
    net::TcpListener,
    process::{Command, Output},
};

fn aircheck(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aircheck"))
        .args(args)
        .output()
        .expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_names_every_command_and_every_flag_has_its_environment_variable() {
    let help = text(&aircheck(&["--help"]).stdout);
    let commands = [
        "up",
        "gateway",
        "ingest",
        "archiver",
        "push",
        "recordings",
        "doctor",
        "migrate",
        "healthcheck",
        "s3-dev",
    ];
    for command in commands {
        assert!(
            help.lines().any(|line| line.trim().starts_with(command)),
            "{command} in\n{help}"
        );
        assert!(aircheck(&[command, "--help"]).status.success(), "{command}");
    }
    for (command, flags) in [
        (
            "gateway",
            vec!["LISTEN", "INGEST", "ARCHIVER", "GRACE", "ALLOWED_ORIGINS"],
        ),
        (
            "ingest",
            vec!["LISTEN", "ADVERTISE", "SPOOL_DIR", "ARCHIVER"],
        ),
        (
            "archiver",
            vec!["LISTEN", "DATABASE_URL", "S3_ENDPOINT", "S3_BUCKET"],
        ),
        ("up", vec!["DATA_DIR", "LISTEN", "GRACE", "DATABASE_URL"]),
    ] {
        let help = text(&aircheck(&[command, "--help"]).stdout);
        for flag in flags {
            assert!(
                help.contains(&format!("[env: AIRCHECK_{flag}")),
                "{command}: {flag}"
            );
        }
    }
}

#[test]
fn bad_flags_are_usage_errors() {
    for args in [
        vec!["up", "--grace", "30"],
        vec!["up", "--grace", "31m"],
        vec!["ingest", "--spool-dir", "x", "--segment-size", "5 parsecs"],
        vec!["nonsense"],
    ] {
        let output = aircheck(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?} is explained");
    }
}

#[test]
fn a_port_in_use_is_one_clear_line_and_exit_code_one() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let listen = taken.local_addr().expect("its address").to_string();
    let data = tempfile::tempdir().expect("tempdir");
    let dir = data.path().to_str().expect("utf-8");
    let output = aircheck(&["up", "--listen", &listen, "--data-dir", dir]);
    assert_eq!(output.status.code(), Some(1));
    let complaint = text(&output.stderr);
    assert!(complaint.contains(&listen), "{complaint}");
}

#[test]
fn nobody_at_the_other_end_of_a_health_check_is_unhealthy() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/readyz", free.local_addr().expect("its address"));
    drop(free);
    assert!(!aircheck(&["healthcheck", &url]).status.success());
}
