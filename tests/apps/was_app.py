"""What the tests of the WAS front end need beyond the rules of PEP 3333."""

import os
import sys
import time

from rules import application as rules
from talk import append, note, path, wait_at


def application(environ, start_response):
    name = environ["PATH_INFO"].lstrip("/").partition("/")[0].replace("-", "_")
    app = globals().get("app_" + name)
    return app(environ, start_response) if app else rules(environ, start_response)


class Closing:
    def __init__(self, blocks):
        self.blocks = iter(blocks)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.blocks)

    def close(self):
        note("closed")


def plain(start_response, *headers, status="200 OK"):
    return start_response(status, [("Content-Type", "text/plain"), *headers])


def app_status(environ, start_response):
    start_response(environ["QUERY_STRING"] + " Whatever", [])
    return [b"with that status"]


def app_status_with_length(environ, start_response):
    start_response(environ["QUERY_STRING"] + " Whatever", [("Content-Length", "5")])
    return [b"12345"]


def app_length_only(environ, start_response):
    """As frameworks answer HEAD: the length of what GET would give, and nothing."""
    start_response("200 OK", [("Content-Length", "4711")])
    return []


def app_big(environ, start_response):
    plain(start_response)
    return [b"x" * int(environ["QUERY_STRING"])]


def app_big_length(environ, start_response):
    size = int(environ["QUERY_STRING"])
    plain(start_response, ("Content-Length", str(size)))
    return [b"x" * size]


def app_endless(environ, start_response):
    plain(start_response)
    return Closing(b"%08d" % number * 1000 for number in range(10**9))


def app_slow_blocks(environ, start_response):
    """Two blocks with a gate between them."""
    plain(start_response)

    def blocks():
        yield b"first"
        note("between")
        wait_at("gate")
        yield b"second"
        yield b"third"

    return Closing(blocks())


def app_seen(environ, start_response):
    """Each run leaves a line."""
    append("seen", environ["QUERY_STRING"])
    plain(start_response)
    return [b"seen"]


class LateClose(Closing):
    def close(self):
        note("closing")
        wait_at("gate")
        super().close()


def app_late_close(environ, start_response):
    """The response is complete, the request is not."""
    plain(start_response, ("Content-Length", "9"))
    return LateClose([b"all of it"])


def app_compute(environ, start_response):
    """Python code that runs until the test ends it, and never waits."""
    note("computing")
    while not os.path.exists(path("enough")):
        sum(range(1000))
    return [b"done"] if plain(start_response) else []


def app_compute_after_block(environ, start_response):
    plain(start_response)

    def blocks():
        yield b"first"
        note("computing")
        while not os.path.exists(path("enough")):
            sum(range(1000))
        yield b"second"

    return Closing(blocks())


def app_fail(environ, start_response):
    raise RuntimeError("before anything")


def app_fail_after_start(environ, start_response):
    plain(start_response)
    raise RuntimeError("after start_response")


def app_fail_after_block(environ, start_response):
    plain(start_response)

    def blocks():
        yield b"first"
        raise RuntimeError("after a block")

    return Closing(blocks())


def app_too_few(environ, start_response):
    plain(start_response, ("Content-Length", "10"))
    return [b"12345"]


def app_too_many(environ, start_response):
    plain(start_response, ("Content-Length", "5"))
    return [b"12345 and more"]


def app_headers(environ, start_response):
    """A header of so many bytes, name and value, so many times."""
    size, _, count = environ["QUERY_STRING"].partition(",")
    plain(start_response, *[("X", "v" * (int(size) - 2))] * int(count or 1))
    return [b"fits"]


def app_cookies(environ, start_response):
    plain(start_response, ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Server", "mine"), ("X-Name", "caf\xe9"))
    return [b""]


def app_printing(environ, start_response):
    print("printed by the application")
    sys.stdout.flush()
    os.system("echo printed by a child")
    plain(start_response)
    return [b"clean"]


def app_body_or_close(environ, start_response):
    note("read %d" % len(environ["wsgi.input"].read()))
    plain(start_response)
    return [b"ok"]


def app_descriptors(environ, start_response):
    """Where the standard descriptors lead."""
    targets = []
    for number in range(3):
        target = os.readlink("/proc/self/fd/%d" % number)
        targets.append(target)
    plain(start_response)
    return ["\n".join(targets).encode()]


def app_open(environ, start_response):
    plain(start_response)
    return [str(len(os.listdir("/proc/self/fd"))).encode()]


def app_sleep(environ, start_response):
    note("sleeping")
    try:
        time.sleep(60)
    finally:
        note("woken")
    return []


def app_hang(environ, start_response):
    note("hanging")
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass


def app_crash(environ, start_response):
    note("crashing")
    os._exit(3)


def app_meet(environ, start_response):
    """Everybody waits for the gate of his own name."""
    note("arrived")
    wait_at(environ["QUERY_STRING"])
    plain(start_response)
    return [str(os.getpid()).encode()]


