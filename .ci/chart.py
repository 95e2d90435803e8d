#!/usr/bin/env python3
"""The Helm chart: linted, rendered without a cluster, each object valid and hardened, each setting known to the program.

    .ci/chart.py FAFNIR      (a Python with helm-python-sdk and kubernetes-validate; FAFNIR is the program)

Prints what is wrong and exits with 1; first every check finds a planted mistake.
"""
import base64, copy, functools, json, os, re, shutil, subprocess, sys, tempfile
from pathlib import Path

import helm_python as helm, kubernetes_validate, yaml

# Some megabytes, read again for each object otherwise.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "deployments/helm/fafnir"
# The oldest that the chart takes, and the newest known.
KUBERNETES = ["1.30", kubernetes_validate.latest_version()]
# Of the Prometheus operator: no schema is published with Kubernetes.
FOREIGN = {"ServiceMonitor", "PrometheusRule"}
LONG = "x" * 32
CREATED = {"create": True, "values": {"databaseUrl": "postgres://fafnir:secret@postgres:5432/", "natsUrl": "nats://services:secret@nats:4222",
                                      "redisUrl": "redis://redis:6379", "serviceToken": LONG, "natsServices": LONG, "natsSessions": LONG,
                                      "csrfKey": LONG, "auditKey": LONG, "jwtKey": base64.b64encode(b"x" * 48).decode()}}
# What is rendered: as it is installed first, with everything, and with as little as possible.
CASES = {
    "least": {"secrets": {"existing": "fafnir-secrets"}},
    "all": {"secrets": CREATED, "mode": "development", "seed": {"enabled": True}, "sim": {"enabled": True, "rate": "2.5"},
            "ingress": {"enabled": True, "host": "fafnir.example.com", "className": "nginx", "tlsSecret": "fafnir-tls"},
            "monitoring": {"enabled": True, "labels": {"release": "prometheus"}}, "databasePrefix": "shared_", "natsPublicUrl": "nats://market.example.com:4222",
            "networkPolicy": {"gatewayFrom": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}],
                              "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
                              "postgres": {"port": 5432, "to": [{"ipBlock": {"cidr": "10.0.0.5/32"}}]}},
            "config": {"engine": {"snapshot_every_s": 120, "facts_keep": "all"}, "sim": {"symbols": ["AAPL", "MSFT"]},
                       "gateway": {"orders_per_second": 50, "trusted_proxies": ["10.0.0.0/8"]},
                       "traces": {"endpoint": "http://otel-collector:4317"}},
            "image": {"digest": "sha256:" + "0" * 64, "pullSecrets": [{"name": "registry"}]},
            "extraEnv": [{"name": "FAFNIR_LOG_FILTER", "value": "debug"}], "nodeSelector": {"disk": "nvme"},
            "tolerations": [{"key": "exchange", "operator": "Exists"}], "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
            "extraVolumes": [{"name": "tls", "secret": {"secretName": "fafnir-tls"}}],
            "extraVolumeMounts": [{"name": "tls", "mountPath": "/etc/tls", "readOnly": True}]},
    "seeded alone": {"secrets": {"existing": "fafnir-secrets"}, "mode": "development", "seed": {"enabled": True}},
    "bare": {"secrets": {"existing": "fafnir-secrets"}, "networkPolicy": {"enabled": False}, "autoscaling": {"enabled": False},
             "migrate": {"enabled": False}, "engine": {"protectFromDrain": False}},
}
# Values that must be refused.
REFUSED = {
    "no secret": {}, "an unknown value": {"secrets": {"existing": "s"}, "replicas": 3}, "a short secret": {"secrets": {"create": True, "values": {**CREATED["values"], "csrfKey": "short"}}},
    "a missing secret": {"secrets": {"create": True, "values": {**CREATED["values"], "jwtKey": ""}}},
    "two stock-services": {"secrets": {"existing": "s"}, "services": {"stock-service": {"replicas": 2}}},
    "a seeded production": {"secrets": {"existing": "s"}, "seed": {"enabled": True}},
    "an address of its own": {"secrets": {"existing": "s"}, "config": {"addresses": {"auth": "http://elsewhere"}}},
}


def render(chart, values):
    with helm.Chart.load(str(chart)) as loaded:
        loaded.validate_schema(values)
        files = loaded.render(values, name="release", namespace="exchange", revision=3, is_install=True)
    return [o for name, text in sorted(files.items()) if not name.endswith("NOTES.txt") for o in yaml.safe_load_all(text) if o]


def pods(objects):
    """Every pod template, with its object's name and component."""
    for o in objects:
        if o["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield o["metadata"]["name"], o["spec"]["template"]


def lint(chart):
    report = helm.lint(str(chart), CASES["all"], strict=True, namespace="exchange", kube_version="v1.30.0")
    # 1 is advice: an icon.
    return [f"{m['path']}: {m['error']}" for m in report["messages"] if m["severity"] > 1]


def valid(objects):
    wrong = []
    for o in objects:
        for version in KUBERNETES if o["kind"] not in FOREIGN else []:
            try:
                kubernetes_validate.validate(o, version, strict=True)
            except Exception as e:  # noqa: BLE001: whatever it says is what is wrong
                wrong.append(f"{o['kind']} {o['metadata']['name']} ({version}): {getattr(e, 'message', e)}")
    names = [(o["kind"], o["metadata"]["name"]) for o in objects]
    return wrong + [f"{name} is there twice" for name in set(names) if names.count(name) > 1]


def hardened(objects):
    wrong = []
    for name, template in pods(objects):
        spec = template["spec"]
        if not spec.get("securityContext", {}).get("runAsNonRoot") or spec.get("automountServiceAccountToken") is not False:
            wrong.append(f"{name}: root, or a token of the cluster")
        for c in spec["containers"] + spec.get("initContainers", []):
            s = c.get("securityContext", {})
            if not (s.get("readOnlyRootFilesystem") and s.get("allowPrivilegeEscalation") is False and s.get("capabilities") == {"drop": ["ALL"]}):
                wrong.append(f"{name}: its container may do what it need not")
            if "memory" not in c.get("resources", {}).get("limits", {}):
                wrong.append(f"{name}: memory without a limit")
            if "ports" in c and not ("livenessProbe" in c and "readinessProbe" in c):
                wrong.append(f"{name}: no probe")
    return wrong


def joined(objects):
    """What refers to something finds it: selectors, named ports, ConfigMaps, budgets, the scaled Deployment."""
    wrong, by = [], {}
    for o in objects:
        by.setdefault(o["kind"], {})[o["metadata"]["name"]] = o
    labels = [(t["metadata"]["labels"], {p["name"] for c in t["spec"]["containers"] for p in c.get("ports", [])}) for _, t in pods(objects)]
    found = lambda selector: [ports for have, ports in labels if selector.items() <= have.items()]
    for kind, path in (("Service", ("selector",)), ("PodDisruptionBudget", ("selector", "matchLabels")), ("NetworkPolicy", ("podSelector", "matchLabels"))):
        for name, o in by.get(kind, {}).items():
            selector = o["spec"]
            for step in path:
                selector = selector[step]
            if not found(selector):
                wrong.append(f"{kind} {name} selects no pod")
            elif kind == "Service" and any(p["targetPort"] not in ports for p in o["spec"]["ports"] for ports in found(selector)):
                wrong.append(f"Service {name}: a port that its pods do not have")
    # Prometheus finds every process that has a door for operations, and it is never published.
    doors = [(s["spec"]["type"], s["spec"]["selector"]) for s in by["Service"].values() if any(p["name"] == "operations" for p in s["spec"]["ports"])]
    wrong += [f"{have['app.kubernetes.io/component']} is not scraped" for have, ports in labels
              if "operations" in ports and not any(s.items() <= have.items() for _, s in doors)]
    wrong += [f"{s['app.kubernetes.io/component']}: its door for operations is published" for kind, s in doors if kind != "ClusterIP"]
    for name, template in pods(objects):
        for v in template["spec"]["volumes"]:
            if "configMap" in v and v["configMap"]["name"] not in by.get("ConfigMap", {}):
                wrong.append(f"{name}: no ConfigMap {v['configMap']['name']}")
    for name, o in by.get("HorizontalPodAutoscaler", {}).items():
        if "replicas" in by["Deployment"].get(o["spec"]["scaleTargetRef"]["name"], {"spec": {"replicas": 1}})["spec"]:
            wrong.append(f"{name} scales what is not there, or has a number of its own")
    # Both ends of an edge agree: who may call is let in, and nobody else.
    policies = {o["spec"]["podSelector"]["matchLabels"].get("app.kubernetes.io/component"): o["spec"] for o in by.get("NetworkPolicy", {}).values()}
    component = lambda peer: peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
    out = {(who, component(peer)) for who, p in policies.items() for rule in p["egress"] for peer in rule.get("to", []) if "podSelector" in peer}
    into = {(component(peer), who) for who, p in policies.items() for rule in p.get("ingress", []) for peer in rule.get("from", [])
            if "app.kubernetes.io/component" in peer.get("podSelector", {}).get("matchLabels", {})}
    wrong += [f"{a} → {b} is let out and not in" for a, b in out - into]
    wrong += [f"{a} → {b} is let in and not out" for a, b in into - out if a in policies]
    return wrong


@functools.cache
def is_command(fafnir, command):
    return subprocess.run([fafnir, command, "--help"], capture_output=True).returncode == 0


def known(objects, fafnir):
    """The program takes the file, and knows every variable and command."""
    wrong, work = [], Path(tempfile.mkdtemp())
    settings = json.loads(subprocess.run([fafnir, "config", "--json"], cwd=work, env={"PATH": os.environ["PATH"], "HOME": str(work)}, check=True, capture_output=True).stdout)
    variables = {"FAFNIR_" + re.sub("[.-]", "_", key).upper() for key in settings}
    secrets = (ROOT / "services/platform/src/secrets.rs").read_text()
    own = re.findall(r'const KEY: &str = "(\w+)"', (ROOT / "services/security/src/audit.rs").read_text())
    variables |= {"FAFNIR_SECRET_" + name.upper() for name in re.findall(r'(?:text|rotating)\(dir, "(\w+)"\)', secrets) + own} | set(re.findall(r"FAFNIR_SECRET_[A-Z_]+[A-Z]", secrets))
    for o in objects:
        if o["kind"] == "ConfigMap":
            (work / "fafnir.toml").write_text(o["data"]["fafnir.toml"])
            asked = subprocess.run([fafnir, "config", "--json", "--config", work / "fafnir.toml"], cwd=work, capture_output=True, text=True,
                                   env={"PATH": os.environ["PATH"], "HOME": str(work)})
            if asked.returncode:
                wrong.append(f"fafnir.toml: {asked.stderr.strip()}")
    for name, template in pods(objects):
        for c in template["spec"]["containers"] + template["spec"].get("initContainers", []):
            wrong += [f"{name}: {e['name']} is no setting" for e in c["env"] if e["name"] not in variables]
            if not is_command(fafnir, c["args"][-1]):
                wrong.append(f"{name}: {c['args'][-1]} is no command")
    shutil.rmtree(work)
    return wrong


def refused(chart, values):
    try:
        render(chart, values)
    except helm.HelmError:
        return True
    return False


def planted(fafnir):
    """Each check finds what is wrong in a chart or an object with a mistake."""
    work = Path(tempfile.mkdtemp())
    shutil.copytree(CHART, work / "fafnir")
    broken = work / "fafnir/templates/broken.yaml"
    broken.write_text("kind: ConfigMap\nmetadata: {name: a\n")
    try:
        assert lint(work / "fafnir"), "lint passes a template that is no YAML"
    finally:
        shutil.rmtree(work)
    objects = render(CHART, CASES["all"])

    def changed(check, kind, name, change):
        mine = copy.deepcopy(objects)
        one = next(o for o in mine if o["kind"] == kind and o["metadata"]["name"].endswith(name))
        change(one)
        # Only this one looks at objects beside each other.
        return mine if check is joined else [one]
    container = lambda o: o["spec"]["template"]["spec"]["containers"][0]
    plants = [
        (valid, "Deployment", "order-service", lambda o: o["spec"].update(replica=2), "an unknown field"),
        (valid, "StatefulSet", "trade-engine", lambda o: container(o)["ports"][0].update(containerPort="8087"), "a wrong type"),
        (valid, "HorizontalPodAutoscaler", "gateway", lambda o: o["spec"].pop("maxReplicas"), "a missing field"),
        (hardened, "Deployment", "sim", lambda o: container(o)["securityContext"].update(readOnlyRootFilesystem=False), "a writable root"),
        (hardened, "Job", "migrate", lambda o: o["spec"]["template"]["spec"]["securityContext"].pop("runAsNonRoot"), "root"),
        (hardened, "Deployment", "gateway", lambda o: container(o).pop("readinessProbe"), "no probe"),
        (joined, "Service", "auth-service", lambda o: o["spec"]["selector"].update({"app.kubernetes.io/component": "auth"}), "a selector of nothing"),
        (joined, "Service", "gateway", lambda o: o["spec"]["ports"][0].update(targetPort="http"), "a port of nothing"),
        (joined, "Service", "portfolio-service", lambda o: o["spec"]["ports"].pop(), "a process that is not scraped"),
        (joined, "Service", "stock-service", lambda o: o["spec"].update(type="NodePort"), "a door that is published"),
        (joined, "NetworkPolicy", "order-service", lambda o: o["spec"]["ingress"][0]["from"].pop(), "an edge with one end"),
        (lambda o: known(o, fafnir), "ConfigMap", "fafnir", lambda o: o["data"].update({"fafnir.toml": "[gateway]\norders_per_second = 50.5\n"}), "a setting of a wrong type"),
        (lambda o: known(o, fafnir), "Deployment", "gateway", lambda o: container(o)["env"].append({"name": "FAFNIR_GATEWAY_SPEED", "value": "1"}), "an unknown variable"),
        (lambda o: known(o, fafnir), "Deployment", "gateway", lambda o: container(o).update(args=["api-gateway"]), "an unknown command"),
    ]
    for check, kind, name, change, what in plants:
        before = check(changed(check, kind, name, lambda o: None))
        assert not before, f"wrong before {what} is planted: {before}"
        assert check(changed(check, kind, name, change)), f"{what} is not found"


def main():
    fafnir = str(Path(sys.argv[1]).resolve())
    planted(fafnir)
    wrong = lint(CHART)
    for case, values in CASES.items():
        objects = render(CHART, values)
        print(f"{case}: {len(objects)} objects")
        wrong += [f"{case}: {w}" for check in (valid, hardened, joined) for w in check(objects)] + [f"{case}: {w}" for w in known(objects, fafnir)]
    wrong += [f"{what} is not refused" for what, values in REFUSED.items() if not refused(CHART, values)]
    print("\n".join(wrong) or "the chart is sound")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
