// What a page with @nats-io/nats-core does: watches market.> over a WebSocket as its session, until the session ends.
// Usage: node --experimental-websocket market.cjs URL USER PASSWORD
"use strict";

const { createRequire } = require("node:module");
const need = createRequire(`${process.env.FAFNIR_TEST_NODE_MODULES}/index.js`);
const { wsconnect } = need("@nats-io/nats-core");

async function main([servers, user, pass]) {
  const nc = await wsconnect({ servers, user, pass, reconnect: false });
  const refused = await new Promise((resolve) => {
    nc.subscribe("facts", { callback: (error) => resolve(error !== null) });
  });
  console.log(refused ? "facts refused" : "facts seen");
  const seen = new Set();
  for await (const message of nc.subscribe("market.>", { max: 20 })) seen.add(message.subject.split(".")[0]);
  console.log("watches", [...seen].join(" "));
  await nc.closed();
  console.log("ended");
}

main(process.argv.slice(2)).then(() => process.exit(0));
