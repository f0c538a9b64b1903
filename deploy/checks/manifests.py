"""Owns the rules for rendered Kubernetes manifests that no schema knows.

Each rule takes a Cluster and yields one line per finding. A rule must never change what it reads.
"""

import re
from urllib.parse import urlsplit

import flags

URL_FLAGS = ("ingest", "archiver", "advertise", "s3-endpoint")
PUBLIC = {("Exact", "/")} | {("Prefix", path) for path in ("/studio", "/api", "/live", "/listen", "/ws")}
PASSWORD_IN_URL = r"//[^/@]*:[^/@]*@"


# What each probe may ask: a path, a health service's name ("" mirrors readiness), or with None only
# for a connection. Liveness never asks whether a service is ready: a drain isn't a fault.
QUESTIONS = {
    "startupProbe": ("/healthz", "liveness", None),
    "readinessProbe": ("/readyz", "readiness", "", None),
    "livenessProbe": ("/healthz", "liveness", None),
}


def question(probe):
    """What a probe asks, in the words of QUESTIONS."""
    if "grpc" in probe:
        return probe["grpc"].get("service", "")
    return probe.get("httpGet", {}).get("path")


def every_container_is_confined(cluster):
    """The restricted profile's demands, on the container itself where that is possible."""
    for workload in cluster.workloads:
        pod = workload.pod.get("securityContext", {})
        if not (pod.get("runAsNonRoot") is True and pod.get("runAsUser", 0) > 0):
            yield f"{workload.name}: the pod may run as root"
        if pod.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{workload.name}: no seccomp profile"
        for container in workload.containers + workload.init_containers:
            context = container.get("securityContext", {})
            if context.get("allowPrivilegeEscalation") is not False:
                yield f"{workload.name}/{container['name']}: privilege escalation is allowed"
            if context.get("readOnlyRootFilesystem") is not True:
                yield f"{workload.name}/{container['name']}: the root file system is writable"
            if context.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{workload.name}/{container['name']}: keeps capabilities"
    for namespace in cluster.of("Namespace"):
        labels = namespace["metadata"].get("labels", {})
        if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"namespace {namespace['metadata']['name']} does not enforce restricted"


def no_pod_holds_a_token(cluster):
    """Every pod has a service account of its own and no token of the Kubernetes API."""
    for workload in cluster.workloads:
        account = cluster.named("ServiceAccount", workload.pod.get("serviceAccountName"))
        if account is None or account.get("automountServiceAccountToken") is not False:
            yield f"{workload.name}: no service account of its own without a token"
        if workload.pod.get("automountServiceAccountToken") is not False:
            yield f"{workload.name}: mounts a token"
        if workload.pod.get("enableServiceLinks") is not False:
            yield f"{workload.name}: Services become environment variables"


def every_container_has_resources(cluster):
    """Requests for the scheduler, a memory limit for the neighbours."""
    for workload in cluster.workloads:
        for container in workload.containers + workload.init_containers:
            resources = container.get("resources", {})
            if not {"cpu", "memory"} <= set(resources.get("requests", {})):
                yield f"{workload.name}/{container['name']}: no requests"
            if "memory" not in resources.get("limits", {}):
                yield f"{workload.name}/{container['name']}: no memory limit"


def every_container_is_probed(cluster):
    """Three probes, each on a port that the container declares."""
    for workload in cluster.workloads:
        for container in workload.containers:
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                probe = container.get(kind, {})
                actions = [probe[a] for a in ("httpGet", "grpc", "tcpSocket") if a in probe]
                if not actions:
                    yield f"{workload.name}/{container['name']}: no {kind}"
                elif workload.port(actions[0]["port"]) is None:
                    yield f"{workload.name}/{container['name']}: {kind} asks an undeclared port"
                elif question(probe) not in QUESTIONS[kind]:
                    yield f"{workload.name}/{container['name']}: {kind} asks the wrong question"


def every_drain_has_its_time(cluster):
    """A preStop sleep, and enough time after it."""
    for workload in cluster.workloads:
        grace = workload.pod.get("terminationGracePeriodSeconds", 0)
        for container in workload.containers:
            stop = container.get("lifecycle", {}).get("preStop", {})
            seconds = stop.get("sleep", {}).get("seconds", 0)
            if seconds < 1:
                yield f"{workload.name}/{container['name']}: no preStop sleep"
            if grace < seconds + 20:
                yield f"{workload.name}: {grace} s are too short for a drain"


def every_image_is_named_exactly(cluster):
    """No floating tag anywhere, a digest in production."""
    for workload in cluster.workloads:
        for container in workload.containers + workload.init_containers:
            image = container["image"]
            tag = image.rsplit("/", 1)[-1].partition(":")[2]
            if "@sha256:" not in image and tag in ("", "latest"):
                yield f"{workload.name}/{container['name']}: floating image {image}"
            if cluster.name.startswith("production") and "@sha256:" not in image:
                yield f"{workload.name}/{container['name']}: {image} has no digest"


def every_setting_is_a_flag(cluster):
    """Subcommands, arguments and variables are ones that the binary knows."""
    for workload in cluster.workloads:
        for container in workload.containers + workload.init_containers:
            environment = workload.environment(container)
            for complaint in flags.complaints(container.get("args", []), environment):
                yield f"{workload.name}/{container['name']}: {complaint}"


def declared_ports_are_the_listened_ones(cluster):
    """The manifest's ports are those of the flags."""
    for workload in cluster.workloads:
        expected = set(flags.LISTENERS.get(workload.containers[0]["args"][0], {}).values())
        declared = set(workload.ports().values())
        if declared != expected:
            yield f"{workload.name}: declares {sorted(declared)}, listens on {sorted(expected)}"


def every_selector_finds_its_pods(cluster):
    """Services, budgets, policies and autoscalers are about workloads that exist."""
    for service in cluster.of("Service"):
        name = service["metadata"]["name"]
        found = cluster.selected({"matchLabels": service["spec"]["selector"]})
        if len(found) != 1:
            yield f"service {name} selects {len(found)} workloads"
        for workload in found:
            for port in service["spec"]["ports"]:
                if workload.port(port.get("targetPort", port["port"])) is None:
                    yield f"service {name}: {workload.name} has no port {port.get('targetPort')}"
    for document in cluster.of("PodDisruptionBudget", "NetworkPolicy"):
        selector = document["spec"].get("selector", document["spec"].get("podSelector"))
        if not cluster.selected(selector):
            yield f"{document['kind']} {document['metadata']['name']} selects nothing"
    for scaler in cluster.of("HorizontalPodAutoscaler"):
        target = cluster.workload(scaler["spec"]["scaleTargetRef"]["name"])
        if target is None or target.replicas is not None:
            yield f"autoscaler {scaler['metadata']['name']}: its target is missing or sets replicas"


def every_address_leads_somewhere(cluster):
    """URLs name a Service, its port and, for ingests, exactly the pods that there are."""
    for workload in cluster.workloads:
        values = workload.settings()
        for flag in URL_FLAGS:
            for url in filter(None, values.get(flag, "").split(",")):
                parts = urlsplit(url.replace("$(POD_NAME)", f"{workload.name}-0"))
                if parts.scheme == "http" and cluster.target(parts.hostname, parts.port)[0] is None:
                    yield f"{workload.name}: --{flag} {url} leads nowhere"
    gateway, ingest = cluster.workload("gateway"), cluster.workload("ingest")
    listed = gateway.settings().get("ingest", "").split(",")
    pods = [f"http://ingest-{i}.ingest:7001" for i in range(ingest.replicas)]
    if listed != pods:
        yield f"gateway knows the ingests {listed}, there are {pods}"


def every_needed_way_is_open(cluster):
    """Default-deny, and for each address in a setting a policy on both ends."""
    policies = [p["spec"] for p in cluster.of("NetworkPolicy")]
    closed = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    if closed not in policies:
        yield "no policy denies by default"
    ways = [(cluster.workload("archiver"), "http://ingest-0.ingest:7001")]
    for workload in cluster.workloads:
        values = workload.settings()
        for flag in ("ingest", "archiver", "s3-endpoint"):
            ways += [(workload, url) for url in values.get(flag, "").split(",") if url]
    for client, url in ways:
        parts = urlsplit(url)
        if parts.scheme != "http":
            continue
        server, port = cluster.target(parts.hostname, parts.port)
        if server is None:
            continue
        for direction, one, other in (("Egress", client, server), ("Ingress", server, client)):
            if not cluster.allows(direction, one, other, port):
                yield f"{direction} {client.name} -> {server.name}:{port} is closed"


def every_path_is_mounted(cluster):
    """Spools and databases lie on claims, keys on Secrets."""
    for workload in cluster.workloads:
        values = workload.settings()
        for flag, source in (
            ("spool-dir", "persistentVolumeClaim"),
            ("data-dir", "persistentVolumeClaim"),
            ("s3-access-key-id-file", "secret"),
            ("s3-secret-access-key-file", "secret"),
        ):
            if flag in values and source not in (workload.volume(values[flag]) or {}):
                yield f"{workload.name}: --{flag} {values[flag]} is not on a {source}"
        database = values.get("database-url") or ""
        if database.startswith("sqlite:"):
            path = re.sub(r"^sqlite:(//)?|\?.*$", "", database)
            if "persistentVolumeClaim" not in (workload.volume(path) or {}):
                yield f"{workload.name}: {path} is not on a claim"
            strategy = workload.document["spec"].get("strategy", {}).get("type")
            if workload.replicas != 1 or strategy != "Recreate":
                yield f"{workload.name}: SQLite with more than one process"
    ingest = cluster.workload("ingest").document["spec"]
    for claim in ingest["volumeClaimTemplates"]:
        if claim["spec"]["accessModes"] != ["ReadWriteOncePod"]:
            yield "ingest: two pods could write one spool"
    retention = ingest.get("persistentVolumeClaimRetentionPolicy")
    if retention != {"whenDeleted": "Retain", "whenScaled": "Retain"}:
        yield "ingest: spools are deleted with their pods"


def whoever_runs_ffmpeg_may_write_temporary_files(cluster):
    """Ingests and archivers have a bounded /tmp: their root is read-only."""
    for name in ("ingest", "archiver"):
        volume = cluster.workload(name).volume("/tmp") or {}
        if "sizeLimit" not in volume.get("emptyDir", {}):
            yield f"{name}: /tmp is not on a bounded emptyDir"


def no_secret_is_written_down(cluster):
    """No Secret objects, and no variable that would need one."""
    for secret in cluster.of("Secret"):
        yield f"Secret {secret['metadata']['name']} is in the repository"
    for config in cluster.of("ConfigMap"):
        for name, value in config.get("data", {}).items():
            if re.search(PASSWORD_IN_URL, value):
                yield f"{config['metadata']['name']}: {name} holds a password"
    for workload in cluster.workloads:
        for container in workload.containers + workload.init_containers:
            for name, value in workload.environment(container).items():
                if re.search(PASSWORD_IN_URL, value or ""):
                    yield f"{workload.name}: {name} holds a password"
                secret = re.search(r"(SECRET|PASSWORD|TOKEN|KEY)[A-Z_]*$", name)
                if secret and not name.endswith("_FILE"):
                    yield f"{workload.name}: {name} is given in the environment"


def the_door_opens_on_the_public_paths_only(cluster):
    """What comes from outside reaches the gateway's Service, and never its health and metrics."""
    opened = []
    for route in cluster.of("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            opened += [(m["path"]["type"], m["path"]["value"]) for m in rule["matches"]]
    for ingress in cluster.of("Ingress"):
        for rule in ingress["spec"]["rules"]:
            opened += [(p["pathType"], p["path"]) for p in rule["http"]["paths"]]
    if opened and {(kind.removeprefix("Path"), path) for kind, path in opened} != PUBLIC:
        yield f"opens {opened}"
    if not opened and cluster.name.startswith("production"):
        yield "there is no door"


RULES = (
    every_container_is_confined,
    no_pod_holds_a_token,
    every_container_has_resources,
    every_container_is_probed,
    every_drain_has_its_time,
    every_image_is_named_exactly,
    every_setting_is_a_flag,
    declared_ports_are_the_listened_ones,
    every_selector_finds_its_pods,
    every_address_leads_somewhere,
    every_needed_way_is_open,
    every_path_is_mounted,
    whoever_runs_ffmpeg_may_write_temporary_files,
    no_secret_is_written_down,
    the_door_opens_on_the_public_paths_only,
)
