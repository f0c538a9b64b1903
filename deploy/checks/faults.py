"""Owns one fault for each rule of manifests.py: a change to good manifests that the rule must see.

Each fault changes the documents it is given, so it must only ever be given a copy.
"""

import manifests


def document(documents, kind, name):
    """One document; a generated name may have a suffix."""
    return next(
        d for d in documents if d["kind"] == kind and d["metadata"]["name"].startswith(name)
    )


def pod(documents, kind, name):
    """The pod that a workload makes."""
    return document(documents, kind, name)["spec"]["template"]["spec"]


def ingest(documents):
    """The ingest's container."""
    return pod(documents, "StatefulSet", "ingest")["containers"][0]


def config(documents, name):
    """The variables of a service."""
    return document(documents, "ConfigMap", name)["data"]


# The fault's name, what it does, and the rule that must notice.
FAULTS = (
    (
        "no seccomp profile",
        lambda d: pod(d, "Deployment", "archiver")["securityContext"].pop("seccompProfile"),
        manifests.every_container_is_confined,
    ),
    (
        "a mounted token",
        lambda d: document(d, "ServiceAccount", "ingest").pop("automountServiceAccountToken"),
        manifests.no_pod_holds_a_token,
    ),
    (
        "no memory limit",
        lambda d: ingest(d)["resources"].pop("limits"),
        manifests.every_container_has_resources,
    ),
    (
        "no readiness probe",
        lambda d: ingest(d).pop("readinessProbe"),
        manifests.every_container_is_probed,
    ),
    (
        "a liveness probe that asks for readiness",
        lambda d: ingest(d)["livenessProbe"]["httpGet"].update(path="/readyz"),
        manifests.every_container_is_probed,
    ),
    (
        "no preStop sleep",
        lambda d: ingest(d).pop("lifecycle"),
        manifests.every_drain_has_its_time,
    ),
    (
        "a floating image",
        lambda d: ingest(d).update(image="aircheck:latest"),
        manifests.every_image_is_named_exactly,
    ),
    (
        "a misspelt variable",
        lambda d: config(d, "ingest").update(AIRCHECK_SPOOL="/spool"),
        manifests.every_setting_is_a_flag,
    ),
    (
        "a port that nobody listens on",
        lambda d: ingest(d)["ports"][0].update(containerPort=7003),
        manifests.declared_ports_are_the_listened_ones,
    ),
    (
        "a selector that selects nothing",
        lambda d: document(d, "Service", "gateway")["spec"].update(selector={"app": "gateway"}),
        manifests.every_selector_finds_its_pods,
    ),
    (
        "an ingest that no gateway knows",
        lambda d: document(d, "StatefulSet", "ingest")["spec"].update(replicas=4),
        manifests.every_address_leads_somewhere,
    ),
    (
        "a way that no policy opens",
        lambda d: document(d, "NetworkPolicy", "ingest")["spec"].pop("ingress"),
        manifests.every_needed_way_is_open,
    ),
    (
        "a spool off its volume",
        lambda d: config(d, "ingest").update(AIRCHECK_SPOOL_DIR="/tmp"),
        manifests.every_path_is_mounted,
    ),
    (
        "no room for temporary files",
        lambda d: pod(d, "Deployment", "archiver")["volumes"][0].update(emptyDir={}),
        manifests.whoever_runs_ffmpeg_may_write_temporary_files,
    ),
    (
        "a password in a ConfigMap",
        lambda d: config(d, "archiver").update(AIRCHECK_DATABASE_URL="postgres://a:b@c/d"),
        manifests.no_secret_is_written_down,
    ),
    (
        "metrics for everybody",
        lambda d: document(d, "HTTPRoute", "aircheck")["spec"]["rules"][0]["matches"].append(
            {"path": {"type": "PathPrefix", "value": "/metrics"}}
        ),
        manifests.the_door_opens_on_the_public_paths_only,
    ),
)
