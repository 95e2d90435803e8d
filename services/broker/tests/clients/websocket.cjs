// What a browser does: watches market.> over a WebSocket. Usage: node websocket.cjs URL USER PASSWORD
"use strict";

const { createRequire } = require("node:module");
const need = createRequire(`${process.env.FAFNIR_TEST_NODE_MODULES}/index.js`);
const { wsconnect } = need("@nats-io/nats-core");

async function main([servers, user, pass]) {
  const nc = await wsconnect({ servers, user, pass, reconnect: false });
  const numbers = [];
  for await (const message of nc.subscribe("market.>", { max: 20 })) numbers.push(Number(message.string()));
  const ordered = numbers.every((number, at) => at === 0 || number === numbers[at - 1] + 1);
  console.log("quotes", numbers.length, "in order", ordered);
  const refused = await new Promise((resolve) => {
    nc.subscribe("orders.>", { callback: (error) => resolve(error !== null) });
  });
  console.log(refused ? "orders refused" : "orders seen");
  await nc.close();
  try {
    await wsconnect({ servers, user, pass: "no", reconnect: false, maxReconnectAttempts: 0 });
    console.log("wrong password accepted");
  } catch {
    console.log("wrong password refused");
  }
}

main(process.argv.slice(2)).then(() => process.exit(0));
