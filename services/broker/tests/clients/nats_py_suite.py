"""nats-py's own test suite against this broker and against nats-server, side by side.

    python3 nats_py_suite.py SERVE NATS_SERVER [EXPRESSION]      pytest, pytest-timeout and aiohttp must be installed

SERVE is the example `serve` of this crate, NATS_SERVER a program of that name. The suite comes from nats-py's last source
distribution on PyPI that has it (its helpers, which start servers, are not in it: they are below), with the client of
the same distribution. Prints what ends differently, with the reason where it is known, and ends with 1 where one has
none, or where a difference that is known is gone. The suite uses ports of its own choice (4222 to 4225, 8080, 8222 to 8225),
which must be free. EXPRESSION is pytest's `-k`.
"""

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import xml.etree.ElementTree as xml

SOURCE = (
    "https://files.pythonhosted.org/packages/c3/f8/b956c4621ba88748ed707c52e69f95b7a50c8914e750edca59a5bef84a76/nats_py-2.14.0.tar.gz",
    "4ed02cb8e3b55c68074a063aa2687087115d805d1513297da90cb2068fb07bed",
)
# What needs no server, or another suite's.
NO_SERVER = ["test_compatibility", "test_nuid", "test_parser"]
# Seconds for one test (its own bounds are 5 and 10) and for the suite on one server.
TEST_MAX, SUITE_MAX = 60, 1500

# What ends otherwise here, by a pattern of its name, and why. What is skipped on both servers is not here.
NEWER = "asks for a server of 2.11 or 2.12; 2.10 is advertised"
KNOWN = [
    (r"ConsumerPauseResumeTest\..*", NEWER),
    (r"KVTest\.test_kv_(create|delete|purge)_with_ttl", NEWER),
    (r"PublishTest\.test_publish_msg_ttl", NEWER),
    (r"V210FeaturesTest\.test_stream_(allow_atomic|allow_msg_schedules|mirror_removal|persist_mode)", NEWER),
    (r"KVTest\.test_kv_republish", "`republish` is refused by name"),
    (r"V210FeaturesTest\.test_stream_source_opt_start_time", "`sources` are refused by name"),
    (r"V210FeaturesTest\.test_subject_transforms", "`subject_transform` is refused by name"),
    (r"KVTest\.test_kv_basic", "expects that servers above 2.12 leave `allow_direct` out; 2.15.1 sends it, as 2.10 and this one do"),
    (r"ObjectStoreTest\.test_object_basics", "expects that servers above 2.12 leave `max_age` out; 2.15.1 sends it, as 2.10 and this one do"),
]
# What passes and fails on either server from run to run.
RACES = [
    (r"OrderedConsumerTest\.test_ordered_consumer_larger_streams", "kills the server and closes the client while it reconnects: ConnectionResetError or TimeoutError"),
    (r"WebSocketTest\.test_ws_headers_with_reconnect", "looks at what came after a PONG, before the client has told its callback: MSG stood before PONG in 500 of 500"),
]

UTILS = r'''
import asyncio, http.client, os, shutil, signal, socket, ssl, subprocess, tempfile, time, unittest
from functools import wraps

SERVER, OURS, CERTIFICATES = os.environ["SUITE_SERVER"], os.environ["SUITE_OURS"] == "1", os.environ["SUITE_CERTIFICATES"]


class NATSD:
    def __init__(self, port=4222, http_port=8222, user="", password="", token="", tls=False, websocket=0, with_jetstream=False):
        self.port, self.http_port, self.user, self.password, self.token = port, http_port, user, password, token
        self.tls, self.websocket, self.with_jetstream, self.proc = tls, websocket, with_jetstream, None
        self.store_dir = tempfile.mkdtemp()

    def command(self):
        if OURS:
            words = [SERVER, "--port", self.port, "--monitor-port", self.http_port, "--store-dir", self.store_dir]
            words += ["--user", self.user, "--password", self.password] if self.user else []
            words += ["--websocket-port", self.websocket] if self.websocket else []
            if self.tls:
                words += ["--tls-certificate", f"{CERTIFICATES}/server.crt", "--tls-key", f"{CERTIFICATES}/server.key"]
            return words
        words = [SERVER, "-a", "127.0.0.1", "-p", self.port, "-m", self.http_port]
        words += ["--user", self.user, "--pass", self.password] if self.user else []
        words += ["-js", "-sd", self.store_dir] if self.with_jetstream else []
        if self.tls:
            words += ["--tls", "--tlscert", f"{CERTIFICATES}/server.crt", "--tlskey", f"{CERTIFICATES}/server.key"]
        if self.websocket:
            path = os.path.join(self.store_dir, "websocket.conf")
            with open(path, "w") as file:
                file.write(f"websocket {{ port: {self.websocket}, no_tls: true }}\n")
            words += ["-c", path]
        return words

    def start(self):
        command = [str(word) for word in self.command()]
        self.proc = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return self.proc

    def send_signal(self, number):
        if self.proc and self.proc.poll() is None:
            os.kill(self.proc.pid, number)

    def stop(self):
        if self.proc and self.proc.returncode is None:
            self.proc.kill()
            self.proc.wait()


def start_natsd(natsd):
    natsd.start()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", natsd.http_port, timeout=5)
            connection.request("GET", "/varz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError("the server does not answer")


class Servers(unittest.TestCase):
    SERVERS, LACKS = [], ""

    def setUp(self):
        if self.LACKS:
            self.skipTest(self.LACKS)
        self.loop = asyncio.new_event_loop()
        self.server_pool = [NATSD(**words) for words in self.SERVERS]
        self.addCleanup(self.loop.close)
        for natsd in self.server_pool:
            self.addCleanup(shutil.rmtree, natsd.store_dir, True)
            self.addCleanup(natsd.stop)
            start_natsd(natsd)
        if any(natsd.tls for natsd in self.server_pool):
            self.natsd = self.server_pool[0]
            self.ssl_ctx = ssl.create_default_context(purpose=ssl.Purpose.SERVER_AUTH)
            self.ssl_ctx.load_verify_locations(f"{CERTIFICATES}/server.crt")


FOO = {"port": 4223, "http_port": 8223, "user": "foo", "password": "bar"}
HOGE = {"port": 4224, "http_port": 8224, "user": "hoge", "password": "fuga"}


class SingleServerTestCase(Servers):
    SERVERS = [{}]


class SingleJetStreamServerTestCase(Servers):
    SERVERS = [{"with_jetstream": True}]


class MultiServerAuthTestCase(Servers):
    SERVERS = [FOO, HOGE]


class SingleWebSocketServerTestCase(Servers):
    SERVERS = [{"websocket": 8080}]


class TLSServerTestCase(Servers):
    SERVERS = [{"port": 4224, "tls": True}]


class MultiTLSServerAuthTestCase(Servers):
    SERVERS = [FOO | {"tls": True}, HOGE | {"tls": True}]


class MultiServerAuthTokenTestCase(Servers):
    LACKS = "users have names here, no tokens"


class TLSServerHandshakeFirstTestCase(Servers):
    LACKS = "TLS comes after INFO on the client port"


class ClusteringTestCase(Servers):
    LACKS = "clusters are nats-server's"


class ClusteringDiscoveryAuthTestCase(ClusteringTestCase):
    pass


class NkeysServerTestCase(Servers):
    LACKS = "users have passwords here, no keys"


class TrustedServerTestCase(NkeysServerTestCase):
    pass


class SingleWebSocketTLSServerTestCase(Servers):
    LACKS = "its certificates of clients are not in the distribution"


class SingleJetStreamServerLimitsTestCase(Servers):
    LACKS = "there is one account, without limits"


class SingleJetStreamServerDomainTestCase(Servers):
    LACKS = "there are no domains"


class NoAuthUserServerTestCase(Servers):
    LACKS = "nobody is let in without a name where there are users"


def get_config_file(path):
    return os.path.join(CERTIFICATES, os.path.basename(path))


def within(seconds):
    def decorate(test):
        @wraps(test)
        def run(case, *words, **named):
            asyncio.set_event_loop(case.loop)
            return asyncio.run(asyncio.wait_for(test(case, *words, **named), seconds))

        return run

    return decorate


def async_test(test, timeout=5):
    return within(timeout)(test)


def async_long_test(test, timeout=10):
    return within(timeout)(test)


def async_debug_test(test, timeout=10):
    return within(timeout)(test)
'''


def fetched(work):
    url, digest = SOURCE
    path = os.path.join(work, "suite.tar.gz")
    with urllib.request.urlopen(url, timeout=60) as answer, open(path, "wb") as file:
        file.write(answer.read())
    with open(path, "rb") as file:
        assert hashlib.sha256(file.read()).hexdigest() == digest, "another file than was looked at"
    with tarfile.open(path) as archive:
        archive.extractall(work, filter="data")
    root = next(entry.path for entry in os.scandir(work) if entry.is_dir())
    for name, text in (("utils.py", UTILS), ("__init__.py", "")):
        with open(os.path.join(root, "tests", name), "w") as file:
            file.write(text)
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out server.crt -days 2 -subj /CN=localhost "
        "-addext subjectAltName=DNS:localhost,DNS:127.0.0.1,IP:127.0.0.1".split(),
        cwd=work,
        check=True,
        stderr=subprocess.DEVNULL,
    )
    return root


def outcomes(root, work, server, ours, expression):
    report = os.path.join(work, f"{ours}.xml")
    environment = os.environ | {
        "PYTHONPATH": os.path.join(root, "src"),
        "SUITE_SERVER": os.path.abspath(server),
        "SUITE_OURS": ours,
        "SUITE_CERTIFICATES": work,
    }
    command = [sys.executable, "-m", "pytest", "-q", "--timeout", str(TEST_MAX), "-p", "no:cacheprovider", "-W", "ignore"]
    command += [*(word for name in NO_SERVER for word in ("--ignore", f"tests/{name}.py")), "--junitxml", report, *(["-k", expression] if expression else []), "tests"]
    subprocess.run(command, cwd=root, env=environment, timeout=SUITE_MAX, stdout=subprocess.DEVNULL)
    found = {}
    for case in xml.parse(report).iter("testcase"):
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        skipped = case.find("skipped")
        name = f"{case.get('classname').rsplit('.', 1)[-1]}.{case.get('name')}"
        if bad is not None:
            found[name] = ("failed", (bad.get("message") or "").splitlines()[:1])
        else:
            found[name] = ("skipped", [skipped.get("message")]) if skipped is not None else ("passed", [])
    return found


def main():
    serve, theirs = sys.argv[1:3]
    expression = sys.argv[3] if len(sys.argv) > 3 else ""
    with tempfile.TemporaryDirectory() as work:
        root = fetched(work)
        here = outcomes(root, work, serve, "1", expression)
        there = outcomes(root, work, theirs, "0", expression)
    for server, found in (("here", here), ("nats-server", there)):
        counts = {word: sum(outcome == word for outcome, _ in found.values()) for word in ("passed", "failed", "skipped")}
        print(f"{server}: " + ", ".join(f"{count} {word}" for word, count in counts.items()))
    for reason in sorted({reason for outcome, reasons in here.values() if outcome == "skipped" for reason in reasons}):
        print(f"skipped: {reason}")
    wrong = 0
    unseen = dict(KNOWN)
    for name in sorted(here.keys() | there.keys()):
        (ours, why), (original, _) = here.get(name, ("missing", [])), there.get(name, ("missing", []))
        reason = next((reason for pattern, reason in KNOWN + RACES if re.fullmatch(pattern, name)), None)
        if ours == original:
            continue
        unseen = {pattern: text for pattern, text in unseen.items() if not re.fullmatch(pattern, name)}
        wrong += reason is None
        print(f"{'known' if reason else 'DIFFERS'}: {name}: {ours} here, {original} there: {reason or ' '.join(map(str, why))}")
    for pattern in unseen if not expression else ():
        wrong += 1
        print(f"GONE: {pattern} ends alike on both: take it off the list")
    print("alike but for what is known" if not wrong else f"{wrong} differences without a reason")
    sys.exit(bool(wrong))


main()
