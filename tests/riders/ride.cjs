// What a page with npm's graphql-ws does: follows its orders and a symbol's trades for as long as its input is open,
// whatever happens to the connection. Usage: node ride.cjs BASE EMAIL PASSWORD SYMBOL [CATCH_UP]
"use strict";

const { createRequire } = require("node:module");
const need = createRequire(`${process.env.FAFNIR_TEST_NODE_MODULES}/index.js`);
const { createClient } = need("graphql-ws");
const WebSocket = need("ws");

const [base, email, password, symbol] = process.argv.slice(2);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** A new token; while nobody answers, again. */
async function token() {
  for (;;) {
    try {
      const answer = await fetch(`${base}/auth/login`, {
        method: "POST",
        headers: { "content-type": "application/json", accept: "application/vnd.fafnir.token+json" },
        body: JSON.stringify({ email, password }),
      });
      if (answer.ok) return (await answer.json()).accessToken;
    } catch {}
    await sleep(200);
  }
}

const client = createClient({
  url: `${base.replace("http", "ws")}/graphql/ws`,
  webSocketImpl: WebSocket,
  connectionParams: async () => ({ Authorization: `Bearer ${await token()}` }),
  retryAttempts: Infinity,
  shouldRetry: () => true,
  retryWait: () => sleep(200),
  on: { connected: () => console.log("connected") },
});

/** Goes on after what was seen last: the library subscribes anew with what the payload holds then. */
function follow(what, query, sequence) {
  const variables = { symbol, after: 0 };
  client.subscribe(
    { query, variables },
    {
      next: ({ data, errors }) => {
        if (errors) return console.log("failed", what, JSON.stringify(errors));
        const [update] = Object.values(data);
        variables.after = update[sequence];
        console.log(what, update[sequence], update.reset, update.order?.id ?? "");
      },
      error: (error) => console.log("gave up", what, JSON.stringify(error), String(error)),
      complete: () => console.log("complete", what),
    },
  );
}

follow("order", "subscription ($after: Int64) { orderUpdates(after: $after) { sequence reset order { id } } }", "sequence");
follow("trade", "subscription ($symbol: String!, $after: Int64) { tradeUpdates(symbol: $symbol, after: $after) { tradeNo reset } }", "tradeNo");
process.stdin.on("end", () => process.exit(0)).resume();
