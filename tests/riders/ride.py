"""What a script with PyPI's gql does: follows its orders and a symbol's trades for as long as its input is open, whatever
happens to the connection. Usage: python ride.py BASE EMAIL PASSWORD SYMBOL"""
import asyncio, json, os, sys, threading, urllib.error, urllib.request

from gql import Client, GraphQLRequest
from gql.transport.exceptions import TransportError
from gql.transport.websockets import WebsocketsTransport
from tenacity import retry, wait_fixed

BASE, EMAIL, PASSWORD, SYMBOL = sys.argv[1:5]
ORDERS = "subscription ($after: Int64) { orderUpdates(after: $after) { sequence reset order { id } } }"
TRADES = "subscription ($symbol: String!, $after: Int64) { tradeUpdates(symbol: $symbol, after: $after) { tradeNo reset } }"


def say(*words):
    print(*words, flush=True)


def sign_in():
    body = json.dumps({"email": EMAIL, "password": PASSWORD}).encode()
    headers = {"content-type": "application/json", "accept": "application/vnd.fafnir.token+json"}
    request = urllib.request.Request(f"{BASE}/auth/login", body, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)["accessToken"]


class Transport(WebsocketsTransport):
    """Each connection has a new token."""

    async def connect(self):
        try:
            token = await asyncio.to_thread(sign_in)
        except (OSError, urllib.error.URLError) as e:
            raise TransportError(str(e)) from e
        self.init_payload = {"Authorization": f"Bearer {token}"}
        if hasattr(self, "adapter"):
            self.adapter.init_payload = self.init_payload
        await super().connect()
        say("connected")


async def follow(session, what, query, sequence, **variables):
    after = 0
    while True:
        try:
            request = GraphQLRequest(query, variable_values={**variables, "after": after})
            async for data in session.subscribe(request):
                (update,) = data.values()
                after = update[sequence]
                say(what, after, str(update["reset"]).lower(), (update.get("order") or {}).get("id", ""))
            say("complete", what)
            return
        except TransportError:
            await asyncio.sleep(0.2)


async def main():
    transport = Transport(BASE.replace("http", "ws") + "/graphql/ws", subprotocols=["graphql-transport-ws"])
    client = Client(transport=transport)
    session = await client.connect_async(reconnecting=True, retry_connect=retry(wait=wait_fixed(0.2)))
    await asyncio.gather(
        follow(session, "order", ORDERS, "sequence"),
        follow(session, "trade", TRADES, "tradeNo", symbol=SYMBOL),
    )


def until_closed():
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=until_closed, daemon=True).start()
asyncio.run(main())
