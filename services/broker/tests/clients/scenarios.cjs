// The scenario suite of @nats-io: prints a transcript that is equal on every server.
// Usage: node scenarios.cjs URL; FAFNIR_TEST_NODE_MODULES is the directory that holds node_modules.
"use strict";

const { createRequire } = require("node:module");
const need = createRequire(`${process.env.FAFNIR_TEST_NODE_MODULES}/index.js`);
const { connect, headers } = need("@nats-io/transport-node");
const { jetstream, jetstreamManager, AckPolicy, DeliverPolicy } = need("@nats-io/jetstream");
const { Kvm } = need("@nats-io/kv");

const say = (...words) => console.log(...words.map((word) => (typeof word === "string" ? word : JSON.stringify(word))));

const shown = (m) =>
  `${m.subject} ${m.string()} stream ${m.seq} consumer ${m.info.deliverySequence} delivered ${m.info.deliveryCount} pending ${m.info.pending}`;

async function attempt(what, action) {
  try {
    say(what, "->", await action());
  } catch (error) {
    say(what, "->", error.name, error.code ?? "", error.message);
  }
}

async function core(nc) {
  const echo = nc.subscribe("js.echo", { callback: (_error, message) => message.respond(`re:${message.string()}`) });
  say("request", (await nc.request("js.echo", "hi", { timeout: 5000 })).string());
  await attempt("nobody", () => nc.request("js.nobody", "hi", { timeout: 5000 }));
  const limited = nc.subscribe("js.n.*", { max: 2 });
  for (let number = 0; number < 4; number++) {
    const h = headers();
    h.set("A", String(number));
    nc.publish(`js.n.${number}`, "x", { headers: h });
  }
  for await (const message of limited) say(message.subject, message.headers.get("A"));
  echo.unsubscribe();
}

async function streams(nc) {
  const jsm = await jetstreamManager(nc);
  const js = jetstream(nc);
  await attempt("info", () => jsm.streams.info("JSS"));
  await jsm.streams.add({ name: "JSS", subjects: ["js.s.>"] });
  await attempt("overlap", () => jsm.streams.add({ name: "JSS2", subjects: ["js.s.a"] }));
  say("found", await jsm.streams.find("js.s.a"));
  for (let number = 0; number < 5; number++) {
    const ack = await js.publish(number % 2 ? "js.s.even" : "js.s.odd", String(number));
    say("ack", ack.stream, ack.seq, ack.duplicate);
  }
  const one = await js.publish("js.s.dup", "x", { msgID: "1" });
  const two = await js.publish("js.s.dup", "x", { msgID: "1" });
  say("duplicate", one.seq === two.seq, two.duplicate);
  await attempt("expected", () => js.publish("js.s.a", "x", { expect: { lastSequence: 1 } }));
  const message = await jsm.streams.getMessage("JSS", { seq: 2 });
  say("get", message.subject, message.string(), message.seq);
  say("last", (await jsm.streams.getMessage("JSS", { last_by_subj: "js.s.odd" })).string());
  say("delete", await jsm.streams.deleteMessage("JSS", 3));
  const info = await jsm.streams.update("JSS", { max_msgs: 100 });
  say("update", info.config.max_msgs);
  const { state } = await jsm.streams.info("JSS", { subjects_filter: ">" });
  say("state", state.messages, state.first_seq, state.last_seq, state.subjects);
}

async function consumers(nc) {
  const jsm = await jetstreamManager(nc);
  const js = jetstream(nc);
  await jsm.consumers.add("JSS", { durable_name: "puller", ack_policy: AckPolicy.Explicit, ack_wait: 1e9, max_deliver: 3 });
  await attempt("policy", () =>
    jsm.consumers.add("JSS", { durable_name: "puller", ack_policy: AckPolicy.Explicit, deliver_policy: DeliverPolicy.New }));
  const consumer = await js.consumers.get("JSS", "puller");
  const got = [];
  for await (const message of await consumer.fetch({ max_messages: 3, expires: 2000 })) {
    say("fetch", shown(message));
    got.push(message);
  }
  say("ack", await got[0].ackAck());
  got[1].nak(300);
  got[2].term();
  await nc.flush();
  const next = await consumer.next({ expires: 5000 });
  say("next", shown(next));
  next.working();
  say("ack", await next.ackAck());
  const again = [];
  const consuming = await consumer.consume({ max_messages: 10 });
  for await (const message of consuming) {
    again.push(shown(message));
    await message.ackAck();
    if (again.length === 2) break;
  }
  consuming.stop();
  say("consume", again.sort());
  const info = await consumer.info();
  say("floor", info.ack_floor.stream_seq, "unacked", info.num_ack_pending, "pending", info.num_pending);
  await jsm.consumers.add("JSS", { durable_name: "pusher", ack_policy: AckPolicy.Explicit, deliver_subject: "js.push.to", filter_subject: "js.s.odd" });
  const push = await js.consumers.getPushConsumer("JSS", "pusher");
  let count = 0;
  for await (const message of await push.consume()) {
    say("push", shown(message));
    message.ack();
    if (++count === 2) break;
  }
  const ordered = await js.consumers.get("JSS");
  count = 0;
  for await (const message of await ordered.consume()) {
    say("ordered", shown(message));
    if (++count === 5) break;
  }
  say("deleted", await jsm.consumers.delete("JSS", "puller"));
  say("purged", (await jsm.streams.purge("JSS", { filter: "js.s.odd" })).purged);
}

async function keyValue(nc) {
  const kvm = new Kvm(nc);
  const kv = await kvm.create("JSKV", { history: 3 });
  for (const value of ["1", "2", "3", "4"]) say("put", await kv.put("a", value));
  const entry = await kv.get("a");
  say("get", entry.string(), entry.revision);
  await attempt("stale", () => kv.update("a", "x", 2));
  say("update", await kv.update("a", "5", 4));
  const history = [];
  for await (const old of await kv.history({ key: "a" })) history.push(old.string());
  say("history", history);
  await kv.put("b", "b");
  const keys = [];
  for await (const key of await kv.keys()) keys.push(key);
  say("keys", keys.sort());
  await kv.delete("a");
  say("deleted", (await kv.get("a")).operation);
  const watch = await kv.watch();
  const seen = [];
  for await (const change of watch) {
    seen.push([change.key, change.operation, change.revision]);
    if (seen.length === 2) break;
  }
  say("watch", seen);
  await kv.destroy();
}

async function main(url) {
  const nc = await connect({ servers: url.replace("nats://", ""), reconnect: false });
  const jsm = await jetstreamManager(nc);
  for (const name of ["JSS", "KV_JSKV"]) await jsm.streams.delete(name).catch(() => {});
  for (const [name, scenario] of [["core", core], ["streams", streams], ["consumers", consumers], ["key-value", keyValue]]) {
    say("#", name);
    await scenario(nc);
  }
  await jsm.streams.delete("JSS");
  await nc.close();
}

main(process.argv[2]).catch((error) => {
  console.error(error);
  process.exit(1);
});
