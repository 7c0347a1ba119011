"""The application every server serves: one path per workload, as little Python as possible."""

import time

HELLO = b"Hello, world!\n"
BIG = b"x" * (1 << 20)
PIECE = b"x" * 1024


def pieces():
    for _ in range(64):
        yield PIECE


def plain(start_response, body):
    start_response(
        "200 OK",
        [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))],
    )
    return [body]


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/hello":
        return plain(start_response, HELLO)
    if path == "/nap":
        time.sleep(0.05)
        return plain(start_response, HELLO)
    if path == "/upload":
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        return plain(start_response, b"%d\n" % len(body))
    if path == "/big":
        return plain(start_response, BIG)
    if path == "/stream":
        # No length: how the end of the body is marked is the server's affair.
        start_response("200 OK", [("Content-Type", "text/plain")])
        return pieces()
    start_response("404 Not Found", [("Content-Length", "0")])
    return []
