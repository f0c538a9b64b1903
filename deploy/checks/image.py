"""Owns the rules for the Dockerfile and compose.yaml that hadolint and the schema don't know.

Each rule yields one line per finding. It must never need a daemon.
"""

import pathlib
import re
import subprocess
import tempfile
import tomllib
from urllib.parse import urlsplit

import flags

# The only ports on the host: the public one, and the development store's for downloads.
PUBLISHED = {"gateway": {8080}, "s3": {9000}}
# Services that end by themselves, so that nothing can be asked of them.
ONE_SHOT = {"migrate", "secrets"}
# It answers 200 to nobody without a signature; see its comment.
UNASKED = {"s3"}

# A named stage: its name, and what follows its image's name up to the next stage.
STAGE = r"^FROM (?=\S+ AS (\w+))(.*?)(?=^FROM |\Z)"


def dockerfile_fits_the_repository(text, ignore, root):
    """The versions, crates and ports of the image are those of the workspace."""
    channel = tomllib.loads((root / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
    if not re.search(rf"^FROM rust:{re.escape(channel)}-", text, re.M):
        yield f"the image is not built with rust {channel}"
    workspace = tomllib.loads((root / "Cargo.toml").read_text())["workspace"]
    for member in workspace["members"]:
        if f"!{member}" not in ignore.splitlines():
            yield f"Dockerfile.dockerignore leaves out the crate {member}"
    version = workspace["package"]["version"]
    if f"ARG VERSION={version}\n" not in text:
        yield f"the image's version is not {version}"
    exposed = {int(p) for line in re.findall(r"^EXPOSE (.*)$", text, re.M) for p in line.split()}
    served = {p for s in ("gateway", "ingest", "archiver") for p in flags.LISTENERS[s].values()}
    if exposed != served:
        yield f"EXPOSE {sorted(exposed)}, but the services listen on {sorted(served)}"


def dockerfile_is_confined(text):
    """Without ffmpeg, unless asked for, no shell; never root; it starts the binary itself."""
    last = text[text.rindex("\nFROM ") :]
    if "\nARG RUNTIME=plain\n" not in text[: text.index("\nFROM ")]:
        yield "the usual image is not the plain one"
    if last.splitlines()[1] != "FROM ${RUNTIME}" or re.search(r"^RUN ", last, re.M):
        yield "the last stage is not the runtime that was asked for"
    stages = {name: body for name, body in re.findall(STAGE, text, re.M | re.S)}
    if "distroless" not in stages.get("plain", "").partition("\n")[0] or "RUN " in stages.get("plain", ""):
        yield "the plain image has a shell"
    if " ffmpeg " not in stages.get("full", "") or "rm -rf /var/lib/apt/lists" not in stages.get("full", ""):
        yield "the full image lacks ffmpeg, or holds lists of packages"
    if "\nUSER 65532:65532\n" not in last:
        yield "the image runs as root"
    if '\nENTRYPOINT ["/usr/local/bin/aircheck"]\n' not in last:
        yield "the image does not start the binary"
    builds = re.findall(r"cargo (?:build|chef cook|install).*", text)
    if not builds or any("--locked" not in line for line in builds):
        yield "cargo builds without --locked"


def compose_services_are_confined(compose):
    """Every service: no root, no capability, a read-only root, an exact image."""
    for name, service in compose["services"].items():
        if name != "secrets" and str(service.get("user", "0")).startswith("0"):
            yield f"{name} runs as root"
        if service.get("read_only") is not True or service.get("cap_drop") != ["ALL"]:
            yield f"{name} has a writable root or capabilities"
        if "no-new-privileges:true" not in service.get("security_opt", []):
            yield f"{name} may gain privileges"
        if service["image"].rpartition(":")[2] in ("latest", service["image"]):
            yield f"{name} has a floating image"
        if "restart" not in service or "logging" not in service:
            yield f"{name} has no restart policy or unbounded logs"


def compose_services_have_room_for_temporary_files(compose):
    """Whoever runs ffmpeg has a /tmp: the root is read-only."""
    for name in ("ingest", "archiver"):
        service = compose["services"][name]
        mounted = service.get("tmpfs", []) + service["volumes"]
        if not any(mount.partition(":")[0] == "/tmp" for mount in mounted):
            yield f"{name} can't write temporary files"


def compose_services_are_watched(compose):
    """Health checks ask a port that is listened on; what is waited for has one; stops have time."""
    for name, service in compose["services"].items():
        if name in ONE_SHOT:
            continue
        if "stop_grace_period" not in service:
            yield f"{name} has no time to stop"
        test = service.get("healthcheck", {}).get("test", [])
        if name not in UNASKED and not test:
            yield f"{name} has no health check"
        if "healthcheck" in test:
            listening = flags.LISTENERS[service["command"][0]]
            if urlsplit(test[-1]).port != listening.get("http-listen", listening["listen"]):
                yield f"{name}: its health check asks another port"
        for other, how in service.get("depends_on", {}).items():
            completes = how["condition"] == "service_completed_successfully"
            if completes != (other in ONE_SHOT):
                yield f"{name} waits for {other} to be {how['condition']}"


def compose_settings_are_flags(compose):
    """Commands and variables are ones that the binary knows, and addresses name services."""
    for name, service in compose["services"].items():
        if "build" not in service:
            continue
        args, environment = service["command"], service["environment"]
        for complaint in flags.complaints(args, environment):
            yield f"{name}: {complaint}"
        values = flags.settings(args, environment)
        for flag in ("ingest", "archiver", "advertise", "s3-endpoint"):
            for url in filter(None, values.get(flag, "").split(",")):
                parts = urlsplit(url)
                target = compose["services"].get(parts.hostname, {"command": [""]})
                if parts.port != flags.LISTENERS.get(target["command"][0], {}).get("listen"):
                    yield f"{name}: --{flag} {url} leads nowhere"
                elif not set(service["networks"]) & set(target["networks"]):
                    yield f"{name} and {parts.hostname} share no network"


def compose_publishes_no_more_than_it_must(compose):
    """The gateway's port, the development store's on loopback, and no password in sight."""
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            if int(port.rpartition(":")[2]) not in PUBLISHED.get(name, set()):
                yield f"{name} publishes {port}"
            if not port.startswith(("127.0.0.1:", "${AIRCHECK_BIND:-127.0.0.1}:")):
                yield f"{name} publishes {port} on every address"
        for variable, value in service.get("environment", {}).items():
            if re.search(r"//[^/@]*:[^/@]*@", str(value)):
                yield f"{name}: {variable} holds a password"


def compose_makes_its_secrets_once(compose):
    """Runs the script of the service `secrets` twice, in a folder of its own and without chown."""
    with tempfile.TemporaryDirectory() as folder:
        secrets = pathlib.Path(folder)
        for volume in compose["services"]["secrets"]["volumes"]:
            (secrets / pathlib.PurePath(volume.partition(":")[2]).name).mkdir()
        script = compose["services"]["secrets"]["command"][0].replace("$$", "$")
        script = "chown() { :; }\n" + script.replace("cd /secrets", 'cd "$SECRETS"')
        seen = []
        for _ in range(2):
            subprocess.run(
                ["bash", "-euc", script],
                check=True,
                timeout=20,
                env={"SECRETS": folder, "PATH": "/usr/bin:/bin"},
            )
            files = sorted(p for p in secrets.glob("*/*"))
            seen.append({str(p.relative_to(secrets)): p.read_text() for p in files})
            if any(p.stat().st_mode & 0o77 for p in files):
                yield "a secret can be read by others"
    first, second = seen
    if first != second:
        yield "a second start changes the secrets"
    password = first["database/password"]
    if len(password) != 48 or first["archiver/pgpass"].strip().rpartition(":")[2] != password:
        yield "the archiver's password is not the database's"
    for key in ("s3-access-key-id", "s3-secret-access-key"):
        if not first[f"store/{key}"] or first[f"store/{key}"] != first[f"archiver/{key}"]:
            yield f"the archiver's {key} is not the store's"


COMPOSE_RULES = (
    compose_services_are_confined,
    compose_services_have_room_for_temporary_files,
    compose_services_are_watched,
    compose_settings_are_flags,
    compose_publishes_no_more_than_it_must,
    compose_makes_its_secrets_once,
)
