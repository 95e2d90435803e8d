#!/usr/bin/env python3
"""Prometheus beside a running platform: every query of the dashboards has data, and the rules are sound.

    tests/locust/run .ci/watch.py      (`prometheus` and `promtool` on the PATH; FAFNIR_DATA_DIR names the platform)

Checks rules, their tests and runbooks, scrapes until stdin ends, then asks every query. Prints what is wrong and exits with
1; first every check finds a planted mistake.
"""
import json, os, re, select, shutil, socket, subprocess, sys, tempfile, time, urllib.parse, urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WATCHING = ROOT / "deployments/prometheus"
READY_S_MAX = 20
# The first audit is a minute after the start; the load takes half of it.
DATA_S_MAX = 90


def queries():
    """Title and query of each panel that asks Prometheus."""
    for file in sorted((ROOT / "deployments/grafana/dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            if panel["datasource"]["type"] == "prometheus":
                for target in panel["targets"]:
                    yield f"{file.name}: {panel['title']}: {target['legendFormat']}", target["expr"]


def names_in_the_program():
    found = set()
    for file in (ROOT / "services").rglob("*.rs"):
        found.update(re.findall(r'"(fafnir_\w+)"', file.read_text()))
    return found


def unknown(text, known):
    """Metrics that no source has. A histogram's series have endings of their own."""
    asked = {re.sub("_(bucket|count|sum)$", "", name) for name in re.findall(r"\bfafnir_\w+", text)}
    return sorted(asked - known)


def told(rules, tests, runbooks):
    """Each alert has a test in which it fires, and a runbook; each runbook an alert."""
    alerts = set(re.findall(r"- alert: (\w+)", rules))
    fired = {name for name, rest in re.findall(r"alertname: (\w+),?\s+exp_alerts:(.*)", tests) if "[]" not in rest}
    sections = set(re.findall(r"^## (\w+)", runbooks, re.M))
    links = {a.lower() for a in alerts} ^ set(re.findall(r"runbooks\.md#(\w+)", rules))
    return ([f"{a} has no test in which it fires" for a in sorted(alerts - fired)] + [f"{a}: alert or runbook is missing" for a in sorted(alerts ^ sections)]
            + [f"{a}: its link" for a in sorted(links)])


def empty(ask, asked):
    """Queries without a figure."""
    return [(title, query) for title, query in asked if not any(v == v for v in ask(query))]


def promtool(*arguments, text=None):
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, input=text)
    return [] if done.returncode == 0 else [f"promtool {' '.join(map(str, arguments))}: {done.stdout}{done.stderr}"]


def scraped(text):
    """What is wrong with what the program tells by itself: names, units, help."""
    return promtool("check", "metrics", text=text)


def by_hand(readme, work):
    """What is wrong with the configuration that deployments/README.md makes: it scrapes the nine by name, without files of others."""
    command = re.search(r"^    (sed -E .*?>prometheus/prometheus.yml)$", readme, re.S | re.M)[1]
    (work / "prometheus").mkdir()
    shutil.copytree(WATCHING / "rules", work / "prometheus/rules")
    subprocess.run(command, shell=True, check=True, cwd=work, env=os.environ | {"DEPLOYMENTS": str(WATCHING.parent)})
    made = (work / "prometheus/prometheus.yml").read_text()
    missing = [port for port in range(9080, 9089) if f"- 127.0.0.1:{port}\n" not in made]
    foreign = re.findall(r"tls_config|dns_sd|https|- [a-z-]+:90\d\d", made)
    return [f"by hand: {what}" for what in missing + foreign] + promtool("check", "config", work / "prometheus/prometheus.yml")


def still():
    rules, tests, runbooks = ((WATCHING / f).read_text() for f in ("rules/fafnir.yaml", "tests/fafnir_test.yaml", "runbooks.md"))
    known = names_in_the_program()
    text = re.sub("^#.*", "", rules) + "".join(query for _, query in queries())
    # What must be found.
    assert unknown(text + " fafnir_trades_total", known) and told(rules + "\n- alert: Planted\n", tests, runbooks) and told(rules, "", runbooks)
    with tempfile.TemporaryDirectory() as work:
        shutil.copytree(WATCHING, work, dirs_exist_ok=True)
        file = Path(work) / "rules/fafnir.yaml"
        file.write_text(rules.replace("fafnir_disk_stage >= 2", "fafnir_disk_stage >= 3"))
        assert promtool("test", "rules", Path(work) / "tests/fafnir_test.yaml"), "the tests pass another limit"
        file.write_text(rules.replace("fafnir_disk_stage >= 2", "fafnir_disk_stage >="))
        assert promtool("check", "rules", file), "promtool takes half an expression"
    readme = (WATCHING.parent / "README.md").read_text()
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as planted:
        assert by_hand(readme.replace(" -e '/tls_config/d'", ""), Path(planted)), "another's authority is taken"
        hands = by_hand(readme, Path(made))
    return (hands + [f"{name} is no metric of the program" for name in unknown(text, known)] + told(rules, tests, runbooks)
            + promtool("check", "rules", WATCHING / "rules/fafnir.yaml") + promtool("test", "rules", WATCHING / "tests/fafnir_test.yaml")
            + promtool("check", "config", WATCHING / "prometheus.yml"))


def main():
    # One process has one set of metrics behind all of its doors: one of them is scraped.
    run = json.loads((Path(os.environ["FAFNIR_DATA_DIR"]) / "run.json").read_text())
    target = run["operations"]["api-gateway"].split("://")[1]
    work = Path(tempfile.mkdtemp())
    config = (WATCHING / "prometheus.yml").read_text()
    if not run["operations"]["api-gateway"].startswith("https://"):
        config = re.sub(r" *scheme: https\n *tls_config: .*\n", "", config)
    config = re.sub(r"targets:.*", f"targets: ['{target}']\n", config, flags=re.S).replace("scrape_interval: 5s", "scrape_interval: 2s").replace("scheme: https", "scheme: http")
    (work / "prometheus.yml").write_text(config)
    shutil.copytree(WATCHING / "rules", work / "rules")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    with open(work / "log", "w") as log:
        server = subprocess.Popen(["prometheus", f"--config.file={work}/prometheus.yml", f"--storage.tsdb.path={work}/data", f"--web.listen-address={address}"],
                                  stdout=log, stderr=log)

    def get(path, **parameters):
        with urllib.request.urlopen(f"http://{address}{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def ask(query):
        return [float(r["value"][1]) for r in get("/api/v1/query", query=query)["result"]]
    try:
        until = time.monotonic() + READY_S_MAX
        while True:
            try:
                get("/api/v1/status/buildinfo")
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < until, (work / "log").read_text()
                time.sleep(0.1)
        # While it scrapes: users are registered in the first seconds alone.
        wrong = still()
        asked = left = list(queries())
        # Asked during the load, as somebody who looks at it does; what comes late has its time.
        while not select.select([sys.stdin], [], [], 2)[0]:
            left = empty(ask, left)
        until = time.monotonic() + DATA_S_MAX
        while left and time.monotonic() < until:
            left = empty(ask, left)
            time.sleep(1)
        with urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        assert scraped(text + "# TYPE fafnir_planted_ms gauge\nfafnir_planted_ms 1\n"), "promtool takes a metric without help"
        wrong += scraped(text)
        assert empty(ask, [("planted", 'fafnir_request_seconds_count{service="nobody"}')]), "a query without data is not found"
        wrong += [f"no data: {title}\n  {query}" for title, query in left]
        rules = [r for g in get("/api/v1/rules")["groups"] for r in g["rules"]]
        wrong += [f"rule {r['name']}: {r.get('lastError')}" for r in rules if r["health"] not in ("ok", "unknown")]
        firing = [a["labels"]["alertname"] for a in get("/api/v1/alerts")["alerts"] if a["state"] == "firing"]
        print(f"{len(asked)} queries, {len(rules)} rules; firing: {', '.join(firing) or 'none'}")
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(work)
    print("\n".join(wrong) or "every query has data")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
