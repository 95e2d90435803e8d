"""The scenario suite of nats-py: prints a transcript that is equal on every server. Usage: scenarios.py URL [current]

With `current` it also uses what servers have since 2.10 (and 2.11: several messages read at once).
"""

import asyncio
import io
import json
import sys
import time

import nats
from nats.errors import NoRespondersError, TimeoutError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamConfig
from nats.js.errors import APIError, KeyNotFoundError, KeyWrongLastSequenceError, NotFoundError


def say(*words):
    print(*words, flush=True)


def shown(message):
    meta = message.metadata
    return (
        f"{message.subject} {message.data!r} stream {meta.sequence.stream} consumer {meta.sequence.consumer} "
        f"delivered {meta.num_delivered} pending {meta.num_pending}"
    )


async def attempt(what, awaitable, show=lambda value: value):
    try:
        say(what, "->", show(await awaitable))
    except APIError as error:
        say(what, "->", type(error).__name__, error.code, error.err_code, error.description)
    except Exception as error:
        say(what, "->", type(error).__name__)


async def core(nc):
    async def answer(message):
        await message.respond(b"re:" + message.data)

    await nc.subscribe("py.echo", cb=answer)
    say("request", (await nc.request("py.echo", b"hi", timeout=5)).data)
    try:
        await nc.request("py.nobody", b"hi", timeout=5)
    except NoRespondersError:
        say("no responders")
    limited = await nc.subscribe("py.n.*")
    await limited.unsubscribe(limit=2)
    for number in range(4):
        await nc.publish(f"py.n.{number}", b"x", headers={"A": str(number)})
    await nc.flush()
    for _ in range(2):
        message = await limited.next_msg(timeout=5)
        say(message.subject, message.headers)


async def streams(js):
    await attempt("info", js.stream_info("PY"))
    await js.add_stream(StreamConfig(name="PY", subjects=["py.s.>"], max_msgs_per_subject=10))
    await attempt("overlap", js.add_stream(StreamConfig(name="PY2", subjects=["py.s.a"])))
    await attempt("names", js.find_stream_name_by_subject("py.s.a"))
    for number in range(5):
        ack = await js.publish("py.s.even" if number % 2 else "py.s.odd", str(number).encode())
        say("ack", ack.stream, ack.seq, ack.duplicate)
    one = await js.publish("py.s.dup", b"x", headers={"Nats-Msg-Id": "1"})
    two = await js.publish("py.s.dup", b"x", headers={"Nats-Msg-Id": "1"})
    say("duplicate", one.seq == two.seq, two.duplicate)
    await attempt("expected", js.publish("py.s.a", b"x", headers={"Nats-Expected-Last-Sequence": "1"}))
    message = await js.get_msg("PY", 2)
    say("get", message.subject, message.data, message.seq)
    say("last", (await js.get_last_msg("PY", "py.s.odd")).data)
    await attempt("missing", js.get_msg("PY", 99))
    await attempt("delete", js.delete_msg("PY", 3))
    state = (await js.stream_info("PY")).state
    say("state", state.messages, state.first_seq, state.last_seq, state.consumer_count)


async def consumers(js, nc):
    pull = await js.pull_subscribe("py.s.>", "puller", config=ConsumerConfig(ack_wait=1, max_deliver=3))
    messages = await pull.fetch(3, timeout=5)
    for message in messages:
        say("pull", shown(message))
    await messages[0].ack_sync(timeout=5)
    # With an answer, so that the next pull cannot overtake it.
    await nc.request(messages[1].reply, b"-NAK", timeout=5)
    await nc.request(messages[2].reply, b"+TERM", timeout=5)
    again = await pull.fetch(1, timeout=5)
    say("again", shown(again[0]))
    await again[0].in_progress()
    await again[0].ack_sync(timeout=5)
    late = await pull.fetch(1, timeout=5)
    say("late", shown(late[0]))
    redelivered = []
    while not redelivered:
        for message in await pull.fetch(5, timeout=5):
            await message.ack_sync(timeout=5)
            if message.metadata.num_delivered > 1:
                redelivered.append(shown(message))
    say("ack wait", redelivered)
    try:
        await pull.fetch(1, timeout=0.5)
    except TimeoutError:
        say("nothing left")
    info = await pull.consumer_info()
    say("floor", info.ack_floor.stream_seq, "unacked", info.num_ack_pending, "pending", info.num_pending)

    got = asyncio.Queue()

    async def on_push(message):
        await got.put(shown(message))
        await message.ack()

    push = await js.subscribe("py.s.odd", durable="pusher", cb=on_push, manual_ack=True)
    for _ in range(2):
        say("push", await asyncio.wait_for(got.get(), 5))
    await push.unsubscribe()
    ordered = await js.subscribe("py.s.>", ordered_consumer=True, config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL))
    for _ in range(5):
        say("ordered", shown(await ordered.next_msg(timeout=5)))
    await ordered.unsubscribe()
    await attempt("gone", js.consumer_info("PY", "nobody"))
    names = sorted(info.name for info in await js.consumers_info("PY") if info.config.durable_name)
    say("consumers", names)
    say("deleted", await js.delete_consumer("PY", "puller"))
    say("purged", await js.purge_stream("PY", subject="py.s.odd"))


async def key_value(js):
    kv = await js.create_key_value(bucket="PYKV", history=3)
    for value in (b"1", b"2", b"3", b"4"):
        say("put", await kv.put("a", value))
    entry = await kv.get("a")
    say("get", entry.value, entry.revision)
    try:
        await kv.update("a", b"x", last=2)
    except KeyWrongLastSequenceError:
        say("stale update refused")
    say("update", await kv.update("a", b"5", last=4))
    say("history", [entry.value for entry in await kv.history("a")])
    await kv.put("b", b"b")
    say("keys", sorted(await kv.keys()))
    await kv.delete("a")
    try:
        await kv.get("a")
    except KeyNotFoundError:
        say("deleted")
    watch = await kv.watchall()
    seen = []
    async for entry in watch:
        if entry is None:
            break
        seen.append((entry.key, entry.operation, entry.revision))
    say("watch", seen)
    await watch.stop()


async def api(nc, operation, body=None):
    """A raw request: its error, or what is asked of the answer."""
    payload = b"" if body is None else json.dumps(body).encode()
    return json.loads((await nc.request(f"$JS.API.{operation}", payload, timeout=5)).data)


async def refused(nc, operation, body):
    error = (await api(nc, operation, body)).get("error")
    say(operation, json.dumps(body), "->", f"{error['code']} {error['err_code']}" if error else "fine")


async def waiting(js, nc):
    """What is awaited, and what no longer is."""
    await js.add_stream(StreamConfig(name="PYW", subjects=["pyw.>"], allow_rollup_hdrs=True))
    for number in range(6):
        await js.publish("pyw.a", str(number).encode())
    config = ConsumerConfig(durable_name="w", ack_policy=AckPolicy.EXPLICIT, max_ack_pending=2, ack_wait=60)
    await js.add_consumer("PYW", config)
    sub = await js.pull_subscribe_bind("w", stream="PYW")
    first = await sub.fetch(2, timeout=5)
    inbox = await nc.subscribe("py.nowait")
    await nc.publish("$JS.API.CONSUMER.MSG.NEXT.PYW.w", b'{"batch":1,"no_wait":true}', "py.nowait")
    await attempt("behind unacked messages", inbox.next_msg(timeout=0.5))
    await first[0].ack_sync(timeout=5)
    say("after an ack", shown(await inbox.next_msg(timeout=5)))
    await js.delete_msg("PYW", 2)
    begun = time.monotonic()
    message = (await sub.fetch(1, timeout=5))[0]
    say("after a deletion", shown(message), time.monotonic() - begun < 1)
    await js.publish("pyw.a", b"rolled", headers={"Nats-Rollup": "all"})
    begun = time.monotonic()
    message = (await sub.fetch(1, timeout=5))[0]
    say("after a rollup", message.data, time.monotonic() - begun < 1)
    await message.ack_sync(timeout=5)
    await js.purge_stream("PYW", seq=100)
    info = await js.stream_info("PYW")
    say("purged beyond the end", info.state.first_seq, info.state.last_seq)
    ack = await js.publish("pyw.*", b"star", headers={"Nats-Msg-Id": "i" * 1500})
    say("a star and a long id", ack.seq, (await js.get_msg("PYW", seq=ack.seq)).subject)
    await js.delete_stream("PYW")


async def kept(js):
    """Deliveries are used up at one of two consumers."""
    for first in ("acked", "used up"):
        await js.add_stream(StreamConfig(name="PYI", subjects=["pyi"], retention="interest"))
        await js.add_consumer("PYI", ConsumerConfig(durable_name="a", ack_policy=AckPolicy.EXPLICIT))
        limits = ConsumerConfig(durable_name="b", ack_policy=AckPolicy.EXPLICIT, ack_wait=0.2, max_deliver=1)
        await js.add_consumer("PYI", limits)
        await js.publish("pyi", b"1")
        a = await js.pull_subscribe_bind("a", stream="PYI")
        b = await js.pull_subscribe_bind("b", stream="PYI")
        if first == "acked":
            await (await a.fetch(1, timeout=5))[0].ack_sync(timeout=5)
        last = (await b.fetch(1, timeout=5))[0]
        await asyncio.sleep(0.6)
        await attempt("nothing more", b.fetch(1, timeout=0.5))
        if first != "acked":
            await (await a.fetch(1, timeout=5))[0].ack_sync(timeout=5)
        before = (await js.stream_info("PYI")).state.messages
        await last.ack_sync(timeout=5)
        say("first", first, "kept", before, "after a late ack", (await js.stream_info("PYI")).state.messages)
        await js.delete_stream("PYI")


async def slow(js):
    """Readers that take their time get everything."""
    await js.add_stream(StreamConfig(name="PYB", subjects=["pyb"]))
    body = b"x" * 100_000
    for _ in range(20):
        await asyncio.gather(*[js.publish("pyb", body, timeout=20) for _ in range(25)])
    ordered = await js.subscribe("pyb", stream="PYB", ordered_consumer=True, pending_bytes_limit=10**10)
    seen = set()
    while len(seen) < 500:
        seen.add((await ordered.next_msg(timeout=10)).metadata.sequence.stream)
        if len(seen) % 50 == 0:
            time.sleep(0.05)
    say("ordered", len(seen))
    await ordered.unsubscribe()
    await js.delete_stream("PYB")
    objects = await js.create_object_store("PYO")
    content = bytes(range(256)) * (20 << 12)
    await objects.put("o", io.BytesIO(content))
    got = await objects.get("o")
    say("object", got.data == content, got.info.chunks)
    await js.delete_object_store("PYO")


async def current(js, nc):
    """What servers have since 2.10."""
    who = json.loads((await nc.request("$SYS.REQ.USER.INFO", b"", timeout=5)).data)
    say("user", who["data"]["user"], who["data"]["account"])
    await js.add_stream(
        StreamConfig(name="PYC", subjects=["pyc.>"], metadata={"a": "b"}, allow_direct=True)
    )
    say("metadata", (await js.stream_info("PYC")).config.metadata.get("a"))
    several = ConsumerConfig(
        durable_name="m", ack_policy=AckPolicy.EXPLICIT, filter_subjects=["pyc.a", "pyc.b.*"], metadata={"c": "d"}
    )
    made = await js.add_consumer("PYC", several)
    say("filters", made.config.filter_subjects, made.config.metadata.get("c"))
    for subject in ("pyc.a", "pyc.z", "pyc.b.1", "pyc.b", "pyc.a"):
        await js.publish(subject, subject.encode())
    sub = await js.pull_subscribe_bind("m", stream="PYC")
    for message in await sub.fetch(3, timeout=5):
        say(shown(message))
        await message.ack()
    for body in ({"seq": 2, "batch": 2}, {"multi_last": ["pyc.>"]}, {"seq": 99, "batch": 1}, {"batch": 1}):
        inbox = await nc.subscribe("py.batch")
        await nc.publish("$JS.API.DIRECT.GET.PYC", json.dumps(body).encode(), "py.batch")
        while True:
            message = await inbox.next_msg(timeout=5)
            status = message.headers.get("Status")
            wanted = ("Nats-Subject", "Nats-Num-Pending", "Nats-Last-Sequence", "Nats-UpTo-Sequence")
            say("direct", json.dumps(body), status, [message.headers.get(name) for name in wanted], message.data)
            if status:
                break
        await inbox.unsubscribe()
    events = await nc.subscribe("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>")
    once = ConsumerConfig(durable_name="once", ack_policy=AckPolicy.EXPLICIT, ack_wait=0.2, max_deliver=1)
    await js.add_consumer("PYC", once)
    sub = await js.pull_subscribe_bind("once", stream="PYC")
    await sub.fetch(1, timeout=5)
    await asyncio.sleep(0.4)
    await attempt("the rest", sub.fetch(5, timeout=0.5), len)
    event = await events.next_msg(timeout=5)
    told = json.loads(event.data)
    say("told", event.subject, told["type"], told["stream_seq"], told["deliveries"])
    create = {"stream_name": "PYC", "config": {"durable_name": "m", "ack_policy": "explicit"}, "action": "create"}
    await refused(nc, "CONSUMER.CREATE.PYC.m", create)
    for config in (
        {"deliver_subject": "py.d", "flow_control": True},
        {"deliver_subject": "py.d", "idle_heartbeat": 1},
        {"rate_limit_bps": 1000},
        {"num_replicas": 3},
        {"filter_subjects": ["pyc.>", "pyc.a"]},
        {"deliver_policy": "bogus"},
    ):
        config = {"durable_name": "r", "ack_policy": "explicit", **config}
        await refused(nc, "CONSUMER.CREATE.PYC.r", {"stream_name": "PYC", "config": config})
    await refused(nc, "STREAM.CREATE.PYD", {"name": "PYD", "subjects": ["pyd"], "mirror_direct": True})
    await refused(nc, "STREAM.MSG.GET.PYC", {"last_by_subj": "pyc."})
    for consumer in ("none", "m"):
        try:
            await nc.request(f"$JS.ACK.PYC.{consumer}.1.1.1.1.0", b"", timeout=1)
            say("double ack", consumer, "confirmed")
        except Exception as error:
            say("double ack", consumer, type(error).__name__)
    await js.delete_stream("PYC")


async def main(url):
    nc = await nats.connect(url, allow_reconnect=False)
    js = nc.jetstream(timeout=5)
    for name in ("PY", "KV_PYKV", "PYW", "PYI", "PYB", "OBJ_PYO", "PYC"):
        try:
            await js.delete_stream(name)
        except NotFoundError:
            pass
    scenarios = [
        ("core", core(nc)),
        ("streams", streams(js)),
        ("consumers", consumers(js, nc)),
        ("key-value", key_value(js)),
        ("waiting", waiting(js, nc)),
        ("kept", kept(js)),
        ("slow", slow(js)),
        ("current", current(js, nc)),
    ]
    for name, scenario in scenarios:
        say("#", name)
        await asyncio.wait_for(scenario, 60)
    await js.delete_stream("PY")
    await js.delete_key_value("PYKV")
    await nc.close()


asyncio.run(main(sys.argv[1]))
