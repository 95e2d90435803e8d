"""Users that browse, trade and watch: GraphQL over HTTP with one kept connection each, and WebSocket.

    pip install -r tests/locust/requirements.txt
    locust -f tests/locust/locustfile.py --host http://127.0.0.1:8080      (then http://127.0.0.1:8089)

`tests/locust/run` starts a platform of its own and runs this for half a minute. Every user registers, signs in and has an
account of its own. A refusal is a failure, and so is an operation that nobody came to (`quitting`).
"""
import json, random, time, uuid
from urllib.parse import urlsplit

import gevent, websocket
from locust import FastHttpUser, between, events, task
from locust.exception import StopUser

PASSWORD = "correct horse battery"
CASH = 250_000
# A Bearer token lives 10 minutes (auth.bearer_ttl_s).
TOKEN_S_MAX = 480
# Sign-in and registration: a user that is asked to wait does, this often.
WAITS_MAX = 6
# Seconds before a question is asked again that could not be answered just then.
WAITS = (0.2, 1, 3)
# What a WebSocket may take to answer.
SOCKET_S_MAX = 10
SYMBOLS = ["AAPL", "MSFT", "NVDA", "TSLA", "AMZN", "GOOGL", "META", "NFLX", "SPY", "QQQ"]
WORDS = ["app", "micro", "bank", "etf", "motor", "shop", "fund", "ford"]
PERIODS = ["1W", "1M", "3M", "1Y"]

QUOTE = "query($s: String!) { getStockQuote(symbol: $s) { code data { symbol price bid ask marketState } } }"
BATCH = "query($s: [String!]!) { getStockQuoteBatch(symbols: $s) { code data { symbol price priceChangePercent } } }"
METADATA = "query($s: String!) { getStockMetadata(symbol: $s) { code data { symbol name currency } } }"
BARS = "query($s: String!, $p: String) { getStockHistoricalData(symbol: $s, period: $p) { code data { date close volume } } }"
SEARCH = "query($q: String!) { searchStocks(query: $q) { symbol name exchange } }"
BOOK = "query($s: String!) { orderBook(symbol: $s, depth: 10) { code data { bids { price quantity } asks { price quantity } } } }"
TRADES = "query($s: String!) { trades(symbol: $s, first: 20) { code data { tradeNo price quantity } } }"
SUMMARY = "query { getPortfolioSummary { code totalBalance accounts { id balance available } } }"
HOLDINGS = "query($r: GetHoldingsRequest!) { getHoldings(request: $r) { code data { symbol quantity avgCost } } }"
ORDERS = "query { getOrders(first: 20) { code count data { id symbol state } } }"
ORDER = "query($r: GetOrderByIDRequest!) { getOrderByOrderID(request: $r) { code data { id state openQuantity } } }"
WATCHLIST = "query { getWatchlist { code data { symbol addedAt } } }"
ACCOUNT = "mutation($r: CreateAccountRequest!) { createAccount(request: $r) { code data { id } } }"
DEPOSIT = "mutation($r: DepositRequest!) { deposit(request: $r) { code newBalance } }"
CREATE = "mutation($r: CreateOrderRequest!) { createOrder(request: $r) { code reason message data { id state } } }"
CANCEL = "mutation($id: String!) { cancelOrder(orderId: $id) { code reason data { id state } } }"
WATCH = "mutation($r: AddToWatchlistRequest!) { addToWatchlist(request: $r) { code } }"
UNWATCH = "mutation($r: RemoveFromWatchlistRequest!) { removeFromWatchlist(request: $r) { code } }"


class Client(FastHttpUser):
    """A signed-in user; its connection is kept."""
    abstract = True
    wait_time = between(0.5, 1.5)

    def on_start(self):
        self.email = f"load-{uuid.uuid4().hex}@example.com"
        person = {"email": self.email, "password": PASSWORD, "firstName": "Load", "lastName": "Test"}
        self.rest("register", person, 201)
        self.sign_in()
        account = self.ask("createAccount", ACCOUNT, r={"type": "INVESTMENT", "currency": "USD",
                                                        "idempotencyKey": uuid.uuid4().hex})
        self.account = account["data"]["id"]
        self.ask("deposit", DEPOSIT, r={"accountId": self.account, "amount": CASH, "currency": "USD",
                                      "idempotencyKey": uuid.uuid4().hex})

    def sign_in(self):
        answer = self.rest("login", {"email": self.email, "password": PASSWORD}, 200)
        self.token, self.until = answer["accessToken"], time.monotonic() + TOKEN_S_MAX

    def rest(self, what, body, expected):
        """A refusal for want of room (429) is kept to, and recorded under a name of its own."""
        for _ in range(WAITS_MAX):
            with self.client.post(f"/auth/{what}", json=body, name=what, catch_response=True,
                                  headers={"Accept": "application/vnd.fafnir.token+json"}) as answer:
                if answer.status_code == 429:
                    answer.request_meta["name"] = f"{what}, asked to wait"
                    answer.success()
                    wait = min(float(answer.headers.get("Retry-After") or 1), 10)
                elif answer.status_code == expected:
                    answer.success()
                    return answer.json()
                else:
                    answer.failure(f"{answer.status_code} {answer.text}")
                    raise StopUser
            gevent.sleep(wait)
        events.request.fire(request_type="POST", name=what, response_time=0, response_length=0,
                            exception=TimeoutError(f"asked to wait {WAITS_MAX} times"), context={})
        raise StopUser

    def ask(self, name, query, also=(), **variables):
        """The first field of the answer; its `code` must be OK or one of `also`. UNAVAILABLE (a read model that is behind, for
        one) says that it may be asked again, which has one effect: it is, a few times, under a name of its own."""
        for wait in (*WAITS, None):
            if time.monotonic() > self.until:
                self.sign_in()
            with self.client.post("/graphql", json={"query": query, "variables": variables}, name=name, catch_response=True,
                                  headers={"Authorization": f"Bearer {self.token}"}) as answer:
                if answer.status_code != 200:
                    answer.failure(f"{answer.status_code} {answer.text}")
                    return {}
                body = answer.json()
                if body.get("errors"):
                    field, refused = {}, body["errors"][0]
                    code, why = refused.get("extensions", {}).get("code"), refused["message"]
                else:
                    field = next(iter(body["data"].values()))
                    code, why = "OK", ""
                    if isinstance(field, dict):
                        code, why = field["code"], f"{field.get('reason')} {field.get('message')}"
                if code == "OK":
                    return field
                if code == "UNAVAILABLE" and wait:
                    answer.request_meta["name"] = f"{name}, asked to try again"
                    answer.success()
                else:
                    if code not in also:
                        answer.failure(f"{code}: {why}")
                    return {}
            gevent.sleep(wait)

    def expect(self, name, what, holds):
        """What must hold beyond the code of an answer."""
        if not holds:
            events.request.fire(request_type="CHECK", name=name, response_time=0, response_length=0,
                                exception=AssertionError(what), context={})


class Browser(Client):
    """Looks for stocks, and at them."""
    weight = 4

    @task(3)
    def look_at_a_stock(self):
        symbol = random.choice(SYMBOLS)
        found = self.ask("getStockMetadata", METADATA, s=symbol)
        self.expect("getStockMetadata", "another symbol", not found or found["data"]["symbol"] == symbol)
        self.ask("getStockQuote", QUOTE, s=symbol)
        bars = self.ask("getStockHistoricalData", BARS, s=symbol, p=random.choice(PERIODS))
        days = [bar["date"] for bar in bars.get("data") or []]
        self.expect("getStockHistoricalData", "bars are missing or not in order", not bars or (days and days == sorted(days)))

    @task(2)
    def search(self):
        self.ask("searchStocks", SEARCH, q=random.choice(WORDS))

    @task(2)
    def look_at_many(self):
        several = random.sample(SYMBOLS, 5)
        quotes = self.ask("getStockQuoteBatch", BATCH, s=several)
        self.expect("getStockQuoteBatch", "not the order that was asked for",
                    not quotes or [q["symbol"] for q in quotes["data"]] == several)

    @task
    def keep_a_watchlist(self):
        symbol = random.choice(SYMBOLS)
        self.ask("addToWatchlist", WATCH, r={"symbol": symbol})
        listed = self.ask("getWatchlist", WATCHLIST)
        self.expect("getWatchlist", "what was added is missing",
                    not listed or symbol in [item["symbol"] for item in listed["data"] or []])
        self.ask("removeFromWatchlist", UNWATCH, r={"symbol": symbol})


class Trader(Client):
    """Buys and sells a little, rests orders and takes them back."""
    weight = 4

    def on_start(self):
        super().on_start()
        self.open = []

    def place(self, side, kind, symbol, price=None):
        order = {"symbol": symbol, "side": side, "type": kind, "quantity": random.randint(1, 5),
                 "accountId": self.account, "clientOrderId": uuid.uuid4().hex}
        if price:
            order["price"] = price
        placed = self.ask("createOrder", CREATE, r=order)
        if not placed:
            return None
        read = self.ask("getOrderByOrderID", ORDER, r={"orderId": placed["data"]["id"]})
        self.expect("getOrderByOrderID", "an order that was placed is not read", not read or read["data"]["id"] == placed["data"]["id"])
        return placed["data"]["id"]

    @task(3)
    def buy_at_the_market(self):
        self.place("BUY", "MARKET", random.choice(SYMBOLS))

    @task(2)
    def sell_what_is_held(self):
        held = self.ask("getHoldings", HOLDINGS, r={"accountId": self.account})
        for holding in held.get("data") or []:
            if holding["quantity"] >= 5:
                self.place("SELL", "MARKET", holding["symbol"])
                return

    @task(4)
    def rest_an_order(self):
        symbol = random.choice(SYMBOLS)
        quote = self.ask("getStockQuote", QUOTE, s=symbol)
        if quote:
            order = self.place("BUY", "LIMIT", symbol, round(quote["data"]["price"] * random.uniform(0.97, 0.999), 2))
            if order:
                self.open.append(order)

    @task(3)
    def take_one_back(self):
        if self.open:
            # It may have been filled meanwhile.
            self.ask("cancelOrder", CANCEL, also=("FAILED_PRECONDITION",), id=self.open.pop(0))

    @task(2)
    def look_at_the_account(self):
        self.ask("getPortfolioSummary", SUMMARY)
        self.ask("getOrders", ORDERS)


class Watcher(Client):
    """Has a WebSocket with quotes and one book, and asks for books and trades."""
    weight = 2

    def on_start(self):
        super().on_start()
        address = urlsplit(self.host)
        scheme = "wss" if address.scheme == "https" else "ws"
        self.socket, began = None, time.perf_counter()
        try:
            self.socket = websocket.create_connection(f"{scheme}://{address.netloc}/graphql/ws", timeout=SOCKET_S_MAX,
                                                      subprotocols=["graphql-transport-ws"])
            self.say(type="connection_init", payload={"Authorization": f"Bearer {self.token}"})
            answer = json.loads(self.socket.recv())
            if answer["type"] != "connection_ack":
                raise ConnectionError(f"{answer}")
            self.fire("connect", began)
        except Exception as e:  # noqa: BLE001: whatever it is, it is a failure of this user
            self.fire("connect", began, e)
            return
        self.say(id="quotes", type="subscribe", payload={
            "query": "subscription($s: [String!]!) { quoteUpdates(symbols: $s) { symbol price } }", "variables": {"s": SYMBOLS}})
        self.say(id="book", type="subscribe", payload={
            "query": "subscription($s: String!) { orderBookUpdates(symbol: $s) { sequence bids { price } asks { price } } }",
            "variables": {"s": random.choice(SYMBOLS)}})
        self.reader = gevent.spawn(self.read)

    def say(self, **message):
        self.socket.send(json.dumps(message))

    def fire(self, name, began, exception=None, length=0):
        events.request.fire(request_type="WS", name=name, response_time=(time.perf_counter() - began) * 1000,
                            response_length=length, exception=exception, context={})

    def read(self):
        """Records each message with what it took since the one before; the time tells how lively the market is."""
        sequence = 0
        while True:
            began = time.perf_counter()
            try:
                text = self.socket.recv()
                message = json.loads(text)
                if message["type"] == "ping":
                    self.say(type="pong")
                    continue
                if message["type"] != "next" or message["payload"].get("errors"):
                    raise ConnectionError(text)
                book = message["payload"]["data"].get("orderBookUpdates")
                if book:
                    if book["sequence"] < sequence:
                        raise AssertionError(f"book {book['sequence']} after {sequence}")
                    sequence = book["sequence"]
                self.fire("book" if book else "quote", began, length=len(text))
            except gevent.GreenletExit:
                return
            except Exception as e:  # noqa: BLE001
                self.fire("read", began, e)
                return

    def on_stop(self):
        if getattr(self, "reader", None):
            self.reader.kill()
        if getattr(self, "socket", None):
            self.socket.close()

    @task(2)
    def look_at_a_book(self):
        book = self.ask("orderBook", BOOK, s=random.choice(SYMBOLS))
        if book and book["data"]["bids"] and book["data"]["asks"]:
            self.expect("orderBook", "crossed", book["data"]["bids"][0]["price"] < book["data"]["asks"][0]["price"])

    @task
    def look_at_the_tape(self):
        tape = self.ask("trades", TRADES, s=random.choice(SYMBOLS))
        numbers = [trade["tradeNo"] for trade in tape.get("data") or []]
        self.expect("trades", "numbers with a gap", not numbers or numbers == list(range(numbers[0], numbers[0] + len(numbers))))

    @task
    def look_at_quotes(self):
        self.ask("getStockQuoteBatch", BATCH, s=SYMBOLS)


# What a run of all three must have come to.
EXPECTED = {"register", "login", "createAccount", "deposit", "getStockMetadata", "getStockQuote", "getStockHistoricalData",
            "searchStocks", "getStockQuoteBatch", "addToWatchlist", "getWatchlist", "removeFromWatchlist", "createOrder",
            "getOrderByOrderID", "getHoldings", "cancelOrder", "getPortfolioSummary", "getOrders", "connect", "quote", "book",
            "orderBook", "trades"}


@events.quitting.add_listener
def came_to_everything(environment, **_):
    missing = EXPECTED - {name for name, _ in environment.stats.entries}
    if missing:
        print(f"nobody came to: {', '.join(sorted(missing))}")
        environment.process_exit_code = 1
