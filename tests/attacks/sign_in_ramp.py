"""Many people at once: each registers, signs in and looks at its orders, as Locust's users do when they are spawned.

    python3 tests/attacks/sign_in_ramp.py BASE [USERS] [PER_SECOND]     200 and 20; the standard library alone

A refusal with Retry-After is no failure: the person comes again then. Prints what was answered, how long a person took
from the first request to the last answer, and how often it had to come again; ends with 1 where somebody was refused
without being told when to come again, or was not let in within a minute (of its own; the whole is bounded by that).
"""
import collections, http.client, json, sys, threading, time, uuid
from urllib.parse import urlparse

BASE = urlparse(sys.argv[1])
USERS = int(sys.argv[2]) if len(sys.argv) > 2 else 200
PER_SECOND = float(sys.argv[3]) if len(sys.argv) > 3 else 20
PATIENCE_S = 60
TOKENS = "application/vnd.fafnir.token+json"


class Person(threading.Thread):
    def __init__(self):
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection(BASE.hostname, BASE.port, timeout=PATIENCE_S)
        self.answers, self.again, self.failure, self.took = collections.Counter(), 0, None, 0.0

    def ask(self, what, path, body, expected, headers):
        """The answer, after as many tries as it takes."""
        until = time.monotonic() + PATIENCE_S
        while True:
            self.connection.request("POST", path, json.dumps(body), {"content-type": "application/json", **headers})
            answer = self.connection.getresponse()
            data = answer.read()
            self.answers[what, answer.status] += 1
            if answer.status == expected:
                return json.loads(data)
            wait = answer.headers.get("retry-after")
            if answer.status not in (429, 503) or wait is None or time.monotonic() + float(wait) > until:
                raise RuntimeError(f"{what}: {answer.status}, Retry-After {wait}: {data[:120]}")
            self.again += 1
            time.sleep(float(wait))

    def run(self):
        started = time.monotonic()
        try:
            me = {"email": f"r{uuid.uuid4().hex[:12]}@example.com", "password": f"p{uuid.uuid4().hex}"}
            self.ask("register", "/auth/register", {**me, "firstName": "A", "lastName": "B"}, 201, {})
            token = self.ask("login", "/auth/login", me, 200, {"accept": TOKENS})["accessToken"]
            orders = self.ask("orders", "/graphql", {"query": "{ getOrders { count } }"}, 200, {"authorization": f"Bearer {token}"})
            assert orders == {"data": {"getOrders": {"count": 0}}}, orders
        except (OSError, http.client.HTTPException, RuntimeError, AssertionError) as e:
            self.failure = repr(e)
        self.took = time.monotonic() - started


def main():
    people, begun = [], time.monotonic()
    for n in range(USERS):
        time.sleep(max(0.0, begun + n / PER_SECOND - time.monotonic()))
        people.append(Person())
        people[-1].start()
    for person in people:
        person.join(4 * PATIENCE_S)
    took = sorted(person.took for person in people)
    answers = sum((person.answers for person in people), collections.Counter())
    failures = [person.failure for person in people if person.failure]
    print(f"{USERS} people at {PER_SECOND:g} a second, all done after {time.monotonic() - begun:.1f} s")
    for (what, status), count in sorted(answers.items()):
        print(f"  {what:10} {status} {count:6}")
    print(f"  a person took p50 {took[len(took) // 2]:.2f} s, p99 {took[int(len(took) * 0.99)]:.2f} s, max {took[-1]:.2f} s")
    print(f"  told to come again {sum(person.again for person in people)} times; failures {len(failures)} {failures[:2]}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
