"""Owns the order of the offline checks and their count; called by deploy/check.sh with the command
that renders an overlay. It must never reach the network, a daemon or a cluster.

It also checks the checks: copies of the manifests with one fault each must be refused.
"""

import copy
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import yaml

import faults
import flags
import image
import manifests
from cluster import Cluster

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = pathlib.Path(sys.executable).parent
# The oldest and the newest release that the manifests are promised for.
KUBERNETES = ("1.34", "1.37")
# Kinds that are not Kubernetes' own: no schema is shipped, so only the rules here look at them.
FOREIGN = {"HTTPRoute"}
YAMLLINT = (
    "{extends: default, rules: {document-start: disable, line-length: {max: 130},"
    " comments: {min-spaces-from-content: 1}, truthy: {check-keys: false},"
    " indentation: {spaces: 2, indent-sequences: consistent}}}"
)
SECONDS = 120


class Report:
    """Counts, and says each result once."""

    def __init__(self):
        self.passed = self.failed = 0

    def check(self, name, findings):
        """One check, passed if it found nothing."""
        findings = [f for f in findings if f]
        self.passed += not findings
        self.failed += bool(findings)
        print("FAIL" if findings else "ok  ", name, flush=True)
        for finding in findings:
            print("      " + finding.replace("\n", "\n      "))

    def refuses(self, name, findings):
        """A check of a check, passed if the fault was found."""
        self.check(f"a fault is found: {name}", [] if list(findings) else ["nobody noticed"])


def tool(*command, text=None):
    """Runs a tool; yields what it printed if it failed."""
    result = subprocess.run(
        [str(word) for word in command],
        input=text,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=ROOT,
    )
    if result.returncode:
        yield (result.stdout + result.stderr).strip() or f"exit code {result.returncode}"


def render(renderer, folder):
    """The text of an overlay."""
    command = [*renderer, str(folder)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, check=True, cwd=ROOT
    ).stdout


def schema(documents, release):
    """Findings of the strict schemas of one Kubernetes release."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump_all(documents, file)
        file.flush()
        validate = [TOOLS / "kubernetes-validate", "--strict", "--quiet", "--no-warn"]
        yield from tool(*validate, "-k", release, file.name)


def compose_schema(compose):
    """Findings of the Compose Specification's schema."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(compose, file)
        file.flush()
        check = [TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec"]
        yield from tool(*check, file.name)


def check_overlays(report, renderer):
    """Every overlay; returns their documents by the overlay's name."""
    overlays = {}
    for folder in sorted((ROOT / "k8s" / "overlays").iterdir()):
        try:
            documents = list(yaml.safe_load_all(render(renderer, folder)))
        except subprocess.CalledProcessError as error:
            report.check(f"{folder.name} renders", [error.stderr])
            continue
        report.check(f"{folder.name} renders", [])
        own = [d for d in documents if d["kind"] not in FOREIGN]
        skipped = sorted({d["kind"] for d in documents} & FOREIGN)
        note = f" (no schema for {', '.join(skipped)}: skipped)" if skipped else ""
        for release in KUBERNETES:
            name = f"{folder.name} is valid for Kubernetes {release}{note}"
            report.check(name, schema(own, release))
        for rule in manifests.RULES:
            name = rule.__name__.replace("_", " ")
            report.check(f"{folder.name}: {name}", rule(Cluster(folder.name, documents)))
        overlays[folder.name] = documents
    return overlays


def check_image(report):
    """The Dockerfile and compose.yaml; returns the latter."""
    dockerfile = ROOT / "deploy" / "Dockerfile"
    text = dockerfile.read_text()
    ignore = dockerfile.with_suffix(".dockerignore").read_text()
    report.check("Dockerfile passes hadolint", tool(TOOLS / "hadolint", dockerfile))
    fits = image.dockerfile_fits_the_repository(text, ignore, ROOT)
    report.check("Dockerfile fits the repository", fits)
    report.check("Dockerfile is confined", image.dockerfile_is_confined(text))
    path = ROOT / "deploy" / "compose.yaml"
    compose = yaml.safe_load(path.read_text())
    report.check("compose.yaml follows the Compose Specification", compose_schema(compose))
    docker = shutil.which("docker")
    if docker and not list(tool(docker, "compose", "version")):
        report.check("docker compose reads it", tool(docker, "compose", "-f", path, "config", "-q"))
    else:
        print("note: no docker compose here, so only the schema has read compose.yaml")
    for rule in image.COMPOSE_RULES:
        report.check(rule.__name__.replace("_", " "), rule(compose))
    return compose


def check_binary(report, binary):
    """The flags that the manifests use are the built binary's own."""
    for command, names in flags.FLAGS.items():
        shown = subprocess.run(
            [binary, command, "--help"], capture_output=True, text=True, timeout=SECONDS
        ).stdout
        words = set(shown.replace("=", " ").split())
        lacking = sorted(f"--{n}" for n in names | flags.COMMON if f"--{n}" not in words)
        report.check(f"aircheck {command} has the flags used here", [f"lacks {f}" for f in lacking])


def check_the_checks(report, production, compose):
    """Every rule and every tool refuses a copy with one fault."""
    for name, spoil, rule in faults.FAULTS:
        spoiled = copy.deepcopy(production)
        spoil(spoiled)
        report.refuses(name, rule(Cluster("production", spoiled)))
    typo = copy.deepcopy(faults.document(production, "StatefulSet", "ingest"))
    pod = typo["spec"]["template"]["spec"]
    pod["terminationGracePeriodSecond"] = pod.pop("terminationGracePeriodSeconds")
    report.refuses("a misspelt field, by schema", schema([typo], KUBERNETES[0]))
    misspelt = copy.deepcopy(compose)
    misspelt["services"]["ingest"]["healthchek"] = misspelt["services"]["ingest"].pop("healthcheck")
    report.refuses("a misspelt field of compose, by schema", compose_schema(misspelt))
    unwatched = image.compose_services_are_watched(misspelt)
    report.refuses("a missing health check of compose", unwatched)
    roomless = copy.deepcopy(compose)
    roomless["services"]["archiver"]["volumes"].remove("/tmp")
    roomless = image.compose_services_have_room_for_temporary_files(roomless)
    report.refuses("no temporary files of compose", roomless)
    untagged = tool(TOOLS / "hadolint", "-", text="FROM debian\n")
    report.refuses("an untagged base, by hadolint", untagged)


def main():
    """Runs all checks; the exit code says whether all passed."""
    report = Report()
    report.check("YAML is tidy", tool(TOOLS / "yamllint", "-s", "-d", YAMLLINT, "deploy", "k8s"))
    overlays = check_overlays(report, sys.argv[1:])
    compose = check_image(report)
    binary = os.environ.get("AIRCHECK_BIN")
    if binary:
        check_binary(report, binary)
    else:
        print("note: AIRCHECK_BIN is not set, so no binary was asked for its flags")
    if "production" in overlays:
        check_the_checks(report, overlays["production"], compose)
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed or not report.passed else 0


if __name__ == "__main__":
    sys.exit(main())
