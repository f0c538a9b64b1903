"""Owns the view of one rendered overlay: its workloads, and who may reach whom in it.

It must never judge: manifests.py does.
"""

import flags


def matches(selector, labels):
    """Whether a label selector selects an object with these labels."""
    operators = {
        "In": lambda e: labels.get(e["key"]) in e["values"],
        "NotIn": lambda e: labels.get(e["key"]) not in e["values"],
        "Exists": lambda e: e["key"] in labels,
        "DoesNotExist": lambda e: e["key"] not in labels,
    }
    pairs = (selector.get("matchLabels") or {}).items()
    expressions = selector.get("matchExpressions") or []
    return all(labels.get(k) == v for k, v in pairs) and all(
        operators[e["operator"]](e) for e in expressions
    )


class Workload:
    """A Deployment or StatefulSet."""

    def __init__(self, document, config_maps):
        self.document = document
        self.kind = document["kind"]
        self.name = document["metadata"]["name"]
        self.replicas = document["spec"].get("replicas")
        self.labels = document["spec"]["template"]["metadata"]["labels"]
        self.pod = document["spec"]["template"]["spec"]
        self.containers = self.pod.get("containers", [])
        self.init_containers = self.pod.get("initContainers", [])
        self._config_maps = config_maps

    def environment(self, container):
        """A container's variables; those from a Secret have the value None."""
        variables = {}
        for source in container.get("envFrom", []):
            variables.update(self._config_maps[source["configMapRef"]["name"]])
        for entry in container.get("env", []):
            variables[entry["name"]] = entry.get("value")
        return variables

    def settings(self):
        """What the first container's command sees, by flag."""
        first = self.containers[0]
        return flags.settings(first["args"], self.environment(first))

    def ports(self):
        """The declared ports by name."""
        return {p["name"]: p["containerPort"] for c in self.containers for p in c.get("ports", [])}

    def port(self, target):
        """The number that a port's name or number stands for, if it is declared."""
        ports = self.ports()
        return ports.get(target, target if target in ports.values() else None)

    def volume(self, path):
        """The volume that a path of the first container lies on: its source, or None."""
        claims = self.document["spec"].get("volumeClaimTemplates", [])
        sources = {c["metadata"]["name"]: {"persistentVolumeClaim": c} for c in claims}
        sources.update({v["name"]: v for v in self.pod.get("volumes", [])})
        for mount in self.containers[0].get("volumeMounts", []):
            if path == mount["mountPath"] or path.startswith(mount["mountPath"] + "/"):
                return sources.get(mount["name"])
        return None


class Cluster:
    """The documents of one overlay."""

    def __init__(self, name, documents):
        self.name = name
        self.documents = documents
        config_maps = {d["metadata"]["name"]: d.get("data", {}) for d in self.of("ConfigMap")}
        self.workloads = [Workload(d, config_maps) for d in self.of("Deployment", "StatefulSet")]

    def of(self, *kinds):
        """The documents of these kinds."""
        return [d for d in self.documents if d["kind"] in kinds]

    def named(self, kind, name):
        """One document, or None."""
        return next((d for d in self.of(kind) if d["metadata"]["name"] == name), None)

    def workload(self, name):
        """The workload of this name, or None."""
        return next((w for w in self.workloads if w.name == name), None)

    def selected(self, selector):
        """The workloads whose pods a selector selects."""
        return [w for w in self.workloads if matches(selector, w.labels)]

    def target(self, host, port):
        """The workload behind a service's host and port, with its own port; or (None, None)."""
        service = self.named("Service", host.split(".")[-1])
        for entry in service["spec"]["ports"] if service else []:
            if entry["port"] == port:
                for workload in self.selected({"matchLabels": service["spec"]["selector"]}):
                    return workload, workload.port(entry.get("targetPort", port))
        return None, None

    def allows(self, direction, workload, peer, port):
        """Whether a policy lets `workload` speak TCP with `peer` on a port, in one direction."""
        side = "to" if direction == "Egress" else "from"
        for policy in self.of("NetworkPolicy"):
            spec = policy["spec"]
            if not matches(spec["podSelector"], workload.labels):
                continue
            for rule in spec.get(direction.lower()) or []:
                ports = rule.get("ports")
                if ports and not any(
                    p.get("protocol", "TCP") == "TCP" and p["port"] == port for p in ports
                ):
                    continue
                peers = rule.get(side)
                if not peers or any(
                    "namespaceSelector" not in p
                    and "podSelector" in p
                    and matches(p["podSelector"], peer.labels)
                    for p in peers
                ):
                    return True
        return False
