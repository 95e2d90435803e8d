#!/usr/bin/env python3
"""A bot in one page: keeps one bid below and one offer above the last price of a symbol, and moves them when it moves.

    python3 tests/bots/quoter.py [SYMBOL] [SECONDS]      (the standard library is all that it needs)

It signs in as the seeded user, quotes by limit orders through GraphQL, and cancels what is open when it ends.
"""
import json, os, sys, time, urllib.request
from decimal import Decimal

URL = os.environ.get("FAFNIR_URL", "http://127.0.0.1:8080")
SYMBOL = sys.argv[1] if len(sys.argv) > 1 else "AAPL"
SECONDS = int(sys.argv[2]) if len(sys.argv) > 2 else 30
AWAY = Decimal("0.05")
SHARES = 5


def post(path, body, headers):
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), {"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.loads(answer.read(), parse_float=Decimal)


class Exchange:
    """The token lives ten minutes; a longer bot signs in again (or asks /auth/refresh)."""

    def __init__(self, email="user@test.com", password="Password123"):
        answer = post("/auth/login", {"email": email, "password": password},
                      {"Accept": "application/vnd.fafnir.token+json"})
        self.headers = {"Authorization": "Bearer " + answer["accessToken"]}

    def ask(self, query, **variables):
        answer = post("/graphql", {"query": query, "variables": variables}, self.headers)
        if answer.get("errors"):
            raise RuntimeError(answer["errors"][0]["message"])
        return answer["data"]

    def price(self):
        quote = self.ask("query($s: String!) { getStockQuote(symbol: $s) { data { price } } }", s=SYMBOL)
        return Decimal(quote["getStockQuote"]["data"]["price"])

    def place(self, side, price):
        request = {"symbol": SYMBOL, "side": side, "type": "LIMIT", "quantity": SHARES, "price": float(price)}
        answer = self.ask("mutation($r: CreateOrderRequest!) { createOrder(request: $r)"
                          " { code data { id state rejectReason } } }", r=request)["createOrder"]
        order = answer["data"]
        print(f"{side:4} {SHARES} {SYMBOL} @ {price}: {answer['code']} {order['rejectReason'] or order['state']}")

    def clear(self):
        self.ask("mutation($s: String) { cancelAllOrders(symbol: $s) { code } }", s=SYMBOL)


def main():
    exchange, quoted, end = Exchange(), None, time.monotonic() + SECONDS
    try:
        while time.monotonic() < end:
            price = exchange.price()
            if quoted is None or abs(price - quoted) >= AWAY / 2:
                exchange.clear()
                exchange.place("BUY", price - AWAY)
                exchange.place("SELL", price + AWAY)
                quoted = price
            time.sleep(0.5)
    finally:
        exchange.clear()


if __name__ == "__main__":
    main()
