"""Owns what the manifests may say to the binary: its subcommands, flags and default ports.

It must never list a flag that the binary lacks: given a built binary, run.py compares the two.
"""

COMMON = {"log-format"}
FLAGS = {
    "gateway": {
        "listen",
        "ingest",
        "archiver",
        "grace",
        "auth-key-file",
        "auth-issuer",
        "auth-audience",
    },
    "ingest": {"listen", "http-listen", "advertise", "spool-dir", "archiver"},
    "archiver": {
        "listen",
        "http-listen",
        "database-url",
        "s3-endpoint",
        "s3-bucket",
        "s3-region",
        "s3-prefix",
        "s3-access-key-id-file",
        "s3-secret-access-key-file",
        "s3-public-endpoint",
    },
    "migrate": {"database-url"},
    "s3-dev": {
        "listen",
        "data-dir",
        "bucket",
        "s3-access-key-id-file",
        "s3-secret-access-key-file",
    },
}
# The flags that say where a service listens, with the port that each has in this repository.
LISTENERS = {
    "gateway": {"listen": 8080},
    "ingest": {"listen": 7001, "http-listen": 7101},
    "archiver": {"listen": 7002, "http-listen": 7102},
    "migrate": {},
    "s3-dev": {"listen": 9000},
}
# Variables that aren't flags: the log filter, the PostgreSQL client's password file, and the pod's
# name, of which AIRCHECK_ADVERTISE is made.
OTHER_VARIABLES = {"RUST_LOG", "PGPASSFILE", "POD_NAME"}


def variable(flag):
    """The environment variable of a flag."""
    return "AIRCHECK_" + flag.upper().replace("-", "_")


def settings(args, environment):
    """The values that a command sees, by flag: its arguments go before its environment."""
    command = args[0]
    values = {}
    for flag in FLAGS.get(command, set()) | COMMON:
        if variable(flag) in environment:
            values[flag] = environment[variable(flag)]
    values.update(zip((arg.removeprefix("--") for arg in args[1::2]), args[2::2]))
    return values


def complaints(args, environment):
    """What a command line and its environment say that the binary wouldn't understand."""
    if not args or args[0] not in FLAGS:
        yield f"unknown subcommand {args[:1]}"
        return
    command = args[0]
    known = FLAGS[command] | COMMON
    for arg in args[1::2]:
        if arg.removeprefix("--") not in known or not arg.startswith("--"):
            yield f"{command} has no flag {arg}"
    allowed = {variable(flag) for flag in known} | OTHER_VARIABLES
    for name in sorted(set(environment) - allowed):
        yield f"{command} has no flag for the variable {name}"
    seen = settings(args, environment)
    for flag, port in LISTENERS[command].items():
        if seen.get(flag) != f"0.0.0.0:{port}":
            yield f"{command} listens on {seen.get(flag)} for --{flag}, not on 0.0.0.0:{port}"
