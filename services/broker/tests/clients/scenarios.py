"""The scenario suite of nats-py: prints a transcript that is equal on every server. Usage: scenarios.py URL"""

import asyncio
import sys

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


async def main(url):
    nc = await nats.connect(url, allow_reconnect=False)
    js = nc.jetstream(timeout=5)
    for name in ("PY", "KV_PYKV"):
        try:
            await js.delete_stream(name)
        except NotFoundError:
            pass
    for name, scenario in (
        ("core", core(nc)),
        ("streams", streams(js)),
        ("consumers", consumers(js, nc)),
        ("key-value", key_value(js)),
    ):
        say("#", name)
        await asyncio.wait_for(scenario, 60)
    await js.delete_stream("PY")
    await js.delete_key_value("PYKV")
    await nc.close()


asyncio.run(main(sys.argv[1]))
