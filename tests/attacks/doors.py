"""What a victim feels while somebody attacks the public doors (HTTP, and NATS for market data), beside a harmless client that burns as much.

    python3 tests/attacks/doors.py BASE [PID] [ATTACK...]      the standard library alone; only against a stack of your own

For each attack it prints the victim's p99 (a query, a cancel, a PING to the broker), the CPU that the server spent (with PID), the p99
while a harmless client had the server spend about as much, the ratio of the two, and the memory. Ends with 1 where a
ratio is above 2, a victim's request failed or a cancel was refused. SECONDS=5 and RATIO=2 in the environment change both.

Victim, harmless client and attacker have an address each (127.0.0.2, .3 and .1 where BASE is on loopback): bounds of an
address are the attacker's alone, as they are on a network.
"""
import http.client, json, multiprocessing, os, socket, struct, sys, threading, time, uuid
from base64 import b64encode
from urllib.parse import urlparse

BASE = urlparse(sys.argv[1])
ADDRESS = (BASE.hostname, BASE.port)
PID = int(sys.argv[2]) if len(sys.argv) > 2 and sys.argv[2].isdigit() else None
SECONDS = float(os.environ.get("SECONDS", "5"))
RATIO = float(os.environ.get("RATIO", "2"))
VICTIM, HARMLESS = "127.0.0.2", "127.0.0.3"
JSON = {"content-type": "application/json"}
TOKENS = "application/vnd.fafnir.token+json"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + struct.pack(">I", 0)[1:] + b"\x04\x00" + struct.pack(">I", 0)


def cpu():
    if PID is None:
        return 0.0
    fields = open(f"/proc/{PID}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory():
    if PID is None:
        return 0
    return next(int(line.split()[1]) // 1024 for line in open(f"/proc/{PID}/status") if line.startswith("VmRSS"))


def connect(host=None):
    """A connection from an address of one's own, where there is one."""
    source = (host, 0) if host and ADDRESS[0].startswith("127.") else None
    return http.client.HTTPConnection(*ADDRESS, timeout=20, source_address=source)


def call(method, path, body=None, headers=None, connection=None):
    connection = connection or connect()
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, {**(JSON if data else {}), **(headers or {})})
    answer = connection.getresponse()
    return answer.status, answer.read()


class User:
    def __init__(self):
        self.email, self.password = f"a{uuid.uuid4().hex[:12]}@example.com", f"p{uuid.uuid4().hex}"
        names = {"firstName": "A", "lastName": "B"}
        status, body = call("POST", "/auth/register", {"email": self.email, "password": self.password, **names})
        assert status == 201, body
        status, body = call("POST", "/auth/login", self.credentials(), {"accept": TOKENS})
        assert status == 200, body
        self.token = json.loads(body)["accessToken"]

    def credentials(self):
        return {"email": self.email, "password": self.password}

    def ask(self, query, connection=None):
        return call("POST", "/graphql", {"query": query}, {"authorization": f"Bearer {self.token}"}, connection)


def answer_of(s):
    """The next line of the broker that is no message."""
    line = b""
    while not line.endswith(b"\r\n"):
        more = s.recv(1)
        if not more:
            raise OSError("the broker closed")
        line += more
    return line.strip()


def nats(user, host=None):
    """A connection for market data."""
    status, body = user.ask("{ marketData { data { url user password } } }")
    access = json.loads(body)["data"]["marketData"]["data"]
    url = urlparse(access["url"])
    source = (host, 0) if host and url.hostname.startswith("127.") else None
    s = socket.create_connection((url.hostname, url.port), timeout=20, source_address=source)
    answer_of(s)
    login = {"user": access["user"], "pass": access["password"], "verbose": False, "protocol": 1}
    s.sendall(b"CONNECT " + json.dumps(login).encode() + b"\r\nPING\r\n")
    answer = answer_of(s)
    if answer != b"PONG":
        raise OSError(answer)
    return s


def ping(s):
    s.sendall(b"PING\r\n")
    while (answer := answer_of(s)) != b"PONG":
        if answer.startswith(b"-ERR"):
            raise OSError(answer)
        if answer == b"PING":
            s.sendall(b"PONG\r\n")


def victim(user, stop, out):
    """Asks, cancels and looks whether the broker answers, again and again, on connections of its own."""
    connection, times, failures, refused = connect(VICTIM), [], [], 0
    bus = nats(user, VICTIM)
    while not stop.is_set():
        started = time.perf_counter()
        try:
            ping(bus)
        except OSError as error:
            failures.append((0, repr(error)))
            bus = nats(user, VICTIM)
        times.append(time.perf_counter() - started)
        for query in ("{ health }", "mutation { cancelAllOrders { code } }"):
            started = time.perf_counter()
            try:
                status, body = user.ask(query, connection)
                if status != 200 or b'"errors"' in body:
                    failures.append((status, body[:100]))
                    refused += "cancel" in query
            except (OSError, http.client.HTTPException) as error:
                failures.append((0, repr(error)))
                connection = connect(VICTIM)
            times.append(time.perf_counter() - started)
        time.sleep(0.01)
    out.put((times, failures, refused))


class Victim:
    """In a process of its own: the attackers' threads do not make it wait."""

    def __init__(self, user):
        own = multiprocessing.get_context("spawn")
        self.stop, self.out = own.Event(), own.Queue()
        self.process = own.Process(target=victim, args=(user, self.stop, self.out), daemon=True)
        self.process.start()

    def end(self):
        self.stop.set()
        self.times, self.failures, self.refused = self.out.get(timeout=60)
        self.process.join(30)
        times = sorted(self.times) or [0]
        return times[min(len(times) - 1, int(len(times) * 0.99))] * 1000


def threads(count, work):
    """Does `work(stop)` in so many threads; answers what ends them. They yield to server and victim: an attacker's own
    machine is another one."""
    stop = threading.Event()

    def yielding():
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        work(stop)

    running = [threading.Thread(target=yielding, daemon=True) for _ in range(count)]
    for thread in running:
        thread.start()

    def end():
        stop.set()
        for thread in running:
            thread.join(30)

    return end


def repeat(once):
    def work(stop):
        connection = connect()
        while not stop.is_set():
            try:
                once(connection)
            except (OSError, http.client.HTTPException):
                connection = connect()
                time.sleep(0.01)

    return work


def open_sockets(count, first=b""):
    held = []
    for _ in range(count):
        try:
            s = socket.create_connection(ADDRESS, timeout=3)
            s.sendall(first)
            s.setblocking(False)
            held.append(s)
        except OSError:
            pass
    return held


def idle_http2(_):
    """4,200 connections of HTTP/2 on which nothing is asked; every PING is answered."""
    held = open_sockets(4200, PREFACE)

    def pong(stop):
        while not stop.is_set():
            for s in held:
                try:
                    data = s.recv(4096)
                    at = data.find(b"\x00\x00\x08\x06\x00\x00\x00\x00\x00")
                    if at >= 0:
                        s.send(data[at:at + 4] + b"\x01" + data[at + 5:at + 17])
                except OSError:
                    pass
            stop.wait(0.5)

    end = threads(1, pong)
    return lambda: (end(), [s.close() for s in held])


def half_heads(_):
    """1,000 connections that send half of a head."""
    held = open_sockets(1000, b"POST /graphql HTTP/1.1\r\nHost: x\r\n")
    return lambda: [s.close() for s in held]


def dear_queries(attacker):
    """One user asks for every history that there is, on 16 connections."""
    field = 'getStockHistoricalData(symbol:"AAPL",period:"MAX"){data{date open high low close volume}}'
    query = "{" + " ".join(f"a{i}:{field}" for i in range(15)) + "}"
    return threads(16, repeat(lambda connection: attacker.ask(query, connection)))


def long_lists(attacker):
    """The longest lists that a query may ask for, one after the other, on 16 connections."""
    query = '{ candles(symbol: "AAPL", first: 1000) { data { time open high low close volume } } }'
    return threads(16, repeat(lambda connection: attacker.ask(query, connection)))


def fragment_bomb(attacker):
    """Fragments that double ten times over."""
    query = "{ getOrders { ...f0 } }"
    for i in range(10):
        inner = "code" if i == 9 else f"...f{i + 1} ...f{i + 1} ...f{i + 1}"
        query += f" fragment f{i} on OrdersResponse {{ {inner} }}"
    return threads(16, repeat(lambda connection: attacker.ask(query, connection)))


def readers_that_do_not_read(attacker):
    """60 connections that ask for much and take nothing."""
    query = '{ candles(symbol: "AAPL", first: 1000) { data { symbol time open high low close volume } } }'
    body = json.dumps({"query": query}).encode()
    head = f"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer {attacker.token}\r\nContent-Length: {len(body)}\r\n\r\n"
    held = []
    for _ in range(60):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(ADDRESS)
        s.sendall((head.encode() + body) * 4)
        held.append(s)
    return lambda: [s.close() for s in held]


def websockets(attacker):
    """400 WebSockets of one user, each with 32 subscriptions."""
    def text(message):
        data, mask = json.dumps(message).encode(), os.urandom(4)
        length = bytes([0x80 | len(data)]) if len(data) < 126 else bytes([0xFE]) + struct.pack(">H", len(data))
        return b"\x81" + length + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data))

    init = {"type": "connection_init", "payload": {"Authorization": f"Bearer {attacker.token}"}}
    ask = {"query": "subscription { orderUpdates(after: 0) { sequence } }"}
    held = []
    for _ in range(400):
        try:
            s = socket.create_connection(ADDRESS, timeout=3)
            key = b64encode(os.urandom(16)).decode()
            s.sendall(f"GET /graphql/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n".encode())
            s.recv(4096)
            s.sendall(text(init) + b"".join(text({"type": "subscribe", "id": str(i), "payload": ask}) for i in range(32)))
            held.append(s)
        except OSError:
            pass
    return lambda: [s.close() for s in held]


def sign_ins(attacker):
    """100 connections that sign in, again and again."""
    body = attacker.credentials()
    return threads(100, repeat(lambda connection: call("POST", "/auth/login", body, {}, connection)))


def endless_heads(_):
    """1,000 connections of HTTP/2 with a head that has no end."""
    held = open_sockets(1000, PREFACE + b"\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82")
    return lambda: [s.close() for s in held]


def frame_floods(_):
    """4 connections that send small frames of HTTP/2 without a pause."""
    floods = [struct.pack(">I", 4)[1:] + b"\x08\x00" + struct.pack(">II", 0, 1),  # WINDOW_UPDATE
              struct.pack(">I", 5)[1:] + b"\x02\x00" + struct.pack(">I", 1) + b"\x00\x00\x00\x00\x10"]  # PRIORITY

    def work(stop, at=[0]):
        at[0] += 1
        block = floods[at[0] % 2] * 2000
        while not stop.is_set():
            try:
                with socket.create_connection(ADDRESS, timeout=3) as s:
                    s.sendall(PREFACE)
                    while not stop.is_set():
                        s.sendall(block)
            except OSError:
                time.sleep(0.01)

    return threads(4, work)


def bus_crowds(attacker):
    """As many connections and equal subscriptions to the broker as there may be, none of which is read."""
    held = []
    for _ in range(300):
        try:
            s = nats(attacker)
            s.sendall(b"".join(b"SUB market.> %d\r\n" % i for i in range(5000)))
            held.append(s)
        except OSError:
            pass
    return lambda: [s.close() for s in held]


def bus_leavers(attacker):
    """16 connections that subscribe 60 times and leave, again and again."""
    def once(_):
        s = nats(attacker)
        s.sendall(b"".join(b"SUB market.none.%d %d\r\n" % (i % 7, i) for i in range(60)))
        ping(s)
        s.close()

    return threads(16, repeat(once))


def bus_strangers(_):
    """2,000 connections to the broker that say nothing, or a megabyte of what is no sign-in."""
    status, body = User().ask("{ marketData { data { url } } }")
    url = urlparse(json.loads(body)["data"]["marketData"]["data"]["url"])
    held = []
    for i in range(2000):
        try:
            s = socket.create_connection((url.hostname, url.port), timeout=3)
            s.setblocking(False)
            if i % 2:
                s.send(b"CONNECT " + b"x" * (1 << 20))
            held.append(s)
        except OSError:
            pass
    return lambda: [s.close() for s in held]


ATTACKS = [idle_http2, half_heads, endless_heads, dear_queries, long_lists, fragment_bomb, readers_that_do_not_read,
           websockets, sign_ins, frame_floods, bus_crowds, bus_leavers, bus_strangers]


def measured(victim_user, seconds, begin):
    end = begin()
    watched, before = Victim(victim_user), cpu()
    time.sleep(seconds)
    spent = (cpu() - before) / seconds
    p99 = watched.end()
    most = memory()
    end()
    return p99, spent, most, watched


def harmless(user, share):
    """A client that asks for quotes so often that the server spends about `share` of a core on it."""
    pause = [0.005]

    def work(stop):
        connection = connect(HARMLESS)
        while not stop.is_set():
            before, started = cpu(), time.perf_counter()
            for _ in range(20):
                user.ask('{ getStockQuote(symbol: "AAPL") { data { price } } }', connection)
                time.sleep(pause[0])
            spent = (cpu() - before) / max(1e-6, time.perf_counter() - started)
            pause[0] = min(0.1, max(0, pause[0] * 0.8 if spent < share else pause[0] * 1.25 + 0.0001))

    return threads(8, work)


def main():
    wanted = [a for a in ATTACKS if a.__name__ in sys.argv[2:]] or ATTACKS
    victim_user, attacker = User(), User()
    users = [User() for _ in range(2)]
    idle, _, _, _ = measured(victim_user, SECONDS, lambda: lambda: None)
    print(f"{'attack':28}{'p99 idle':>10}{'harmless':>10}{'attacked':>10}{'ratio':>7}{'CPU':>7}{'MB':>7}  failures")
    bad = False
    for attack in wanted:
        before = memory()
        p99, spent, most, felt = measured(victim_user, SECONDS, lambda: attack(attacker))
        time.sleep(1)
        quiet, _, _, _ = measured(victim_user, SECONDS, lambda: harmless(users[0], min(spent, 1.8)))
        # Below what a person or a machine tells apart there is no ratio worth the name.
        ratio = p99 / max(quiet, idle, 2.0)
        bad |= ratio > RATIO or bool(felt.failures)
        print(f"{attack.__name__:28}{idle:10.1f}{quiet:10.1f}{p99:10.1f}{ratio:7.2f}{spent:7.2f}{most - before:+7d}  "
              f"{len(felt.failures)} of {len(felt.times)}, {felt.refused} cancels {felt.failures[:1]}", flush=True)
    sys.exit(bad)


if __name__ == "__main__":
    main()
