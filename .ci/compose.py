#!/usr/bin/env python3
"""The Compose files: taken by each docker-compose named, each setting known to the program, nothing open that need not be.

    .ci/compose.py FAFNIR DOCKER_COMPOSE...      (a Python with PyYAML; FAFNIR is the program)

Prints what is wrong and exits with 1; first every check finds a planted mistake.
"""
import copy, json, os, re, shutil, subprocess, sys, tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = "deployments/compose"
PROFILES = ["--profile", "market", "--profile", "observe", "--profile", "load"]
# What is reached from outside of the containers.
PUBLISHED = {"gateway", "nats", "prometheus", "grafana", "locust"}
PLAIN = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}


def config(work, program, files):
    asked = [program] + [x for f in files for x in ("-f", work / COMPOSE / f)] + PROFILES + ["config"]
    return subprocess.run(asked, cwd=work, env=PLAIN, capture_output=True, text=True)


def variables(fafnir):
    settings = json.loads(subprocess.run([fafnir, "config", "--json"], cwd="/", env=PLAIN, check=True, capture_output=True).stdout)
    secrets = (ROOT / "services/platform/src/secrets.rs").read_text()
    own = re.findall(r'const KEY: &str = "(\w+)"', (ROOT / "services/security/src/audit.rs").read_text())
    return ({"FAFNIR_" + re.sub("[.-]", "_", key).upper() for key in settings} | set(re.findall(r"FAFNIR_SECRET_[A-Z_]+[A-Z]", secrets))
            | {"FAFNIR_SECRET_" + name.upper() for name in re.findall(r'(?:text|rotating)\(dir, "(\w+)"\)', secrets) + own})


def check(services, known):
    wrong = []
    for name, s in services.items():
        wrong += [f"{name}: {v} is no setting" for v in s.get("environment") or {} if v.startswith("FAFNIR_") and v not in known]
        for port in s.get("ports", []):
            # The older one prints text, the newer one fields.
            where = port if isinstance(port, str) else f"{port.get('host_ip', '')}:{port['published']}"
            if name not in PUBLISHED or not where.startswith("127.0.0.1:"):
                wrong.append(f"{name}: port {where} is published")
        if not s.get("mem_limit") or not s.get("cpus"):
            wrong.append(f"{name}: no limit")
        if "healthcheck" not in s and name not in ("promtail", "locust"):
            wrong.append(f"{name}: no healthcheck")
        if any("docker.sock" in str(v) for v in s.get("volumes", [])):
            wrong.append(f"{name}: has Docker's socket")
    # Each process has its own certificate, and nobody speaks in the clear with anybody.
    for name, s in services.items():
        of = {str(v) if isinstance(v, str) else f"{v.get('source')}:{v.get('target')}" for v in s.get("volumes", [])}
        if "FAFNIR_TLS_KEY" in (s.get("environment") or {}) and not any("/tls/" in v and "/etc/fafnir/tls" in v for v in of):
            wrong.append(f"{name}: no certificate")
        wrong += [f"{name}: {v} is in the clear" for v, is_set in (s.get("environment") or {}).items()
                  if v.startswith("FAFNIR_") and re.match("(http|nats|redis|ws)://", str(is_set))]
    if services["sim"]["depends_on"].get("seed", {}).get("condition") != "service_completed_successfully":
        wrong.append("sim does not wait for the end of seed")
    return wrong


def main():
    fafnir, programs, wrong = str(Path(sys.argv[1]).resolve()), sys.argv[2:], []
    known, work = variables(fafnir), Path(tempfile.mkdtemp())
    try:
        shutil.copytree(ROOT / "deployments", work / "deployments", ignore=shutil.ignore_patterns(".env"))
        for program in programs:
            # No secret, no start: neither without .env nor with the example as it is.
            (work / COMPOSE / ".env").unlink(missing_ok=True)
            assert config(work, program, ["docker-compose.yaml"]).returncode, f"{program} takes it without a secret"
            shutil.copy(work / COMPOSE / "env.example", work / COMPOSE / ".env")
            assert config(work, program, ["docker-compose.yaml"]).returncode, f"{program} takes empty secrets"
            (work / COMPOSE / ".env").unlink()
            shutil.rmtree(work / COMPOSE / "tls", ignore_errors=True)
            subprocess.run([fafnir, "secrets", "init", work / COMPOSE], check=True, capture_output=True, env=PLAIN)
            for files in (["docker-compose.yaml"], ["docker-compose.yaml", "development.yaml"]):
                asked = config(work, program, files)
                if asked.returncode or "obsolete" in asked.stderr:
                    wrong.append(f"{program} {files}: {asked.stderr.strip()}")
                    continue
                services = yaml.safe_load(asked.stdout)["services"]
                plants = {"an unknown setting": lambda s: s["gateway"]["environment"].update(FAFNIR_SPEED="1"),
                          "a door": lambda s: s["postgres"].update(ports=["127.0.0.1:5432:5432"]),
                          "an open door": lambda s: s["gateway"].update(ports=["8080:8080"]),
                          "no limit": lambda s: s["redis"].pop("mem_limit"), "no healthcheck": lambda s: s["nats"].pop("healthcheck"),
                          "the socket": lambda s: s["promtail"]["volumes"].append("/var/run/docker.sock:/var/run/docker.sock"),
                          "no certificate": lambda s: s["order-service"].update(volumes=[]),
                          "plain text": lambda s: s["gateway"]["environment"].update(FAFNIR_NATS_URL="nats://nats:4222"),
                          "an early market": lambda s: s["sim"]["depends_on"]["seed"].update(condition="service_started")}
                found = check(services, known)
                for what, plant in plants.items():
                    mine = copy.deepcopy(services)
                    plant(mine)
                    assert len(check(mine, known)) > len(found), f"{program}: {what} is not found"
                wrong += [f"{program} {files}: {w}" for w in found]
    finally:
        shutil.rmtree(work)
    print("\n".join(wrong) or f"the Compose files are sound for {len(programs)} docker-compose")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
