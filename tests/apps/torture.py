"""The application of the torture test: every kind of request, each noted when it begins and when it ends.

An answer names its request and its process and carries a checksum, so that a client can tell a whole
answer to its own question from anything else.
"""

import os
import tempfile
import time
import zlib

from talk import append, path

if os.path.exists(path("broken")):
    raise RuntimeError("a bad deploy")

PID = str(os.getpid())
BLOCK = 3000


def after_fork():
    global PID
    PID = str(os.getpid())


os.register_at_fork(after_in_child=after_fork)


def application(environ, start_response):
    _, kind, number = environ["PATH_INFO"].split("/")
    append("notes-of-requests", "begin %s %s" % (number, PID))
    body = globals()["answer_" + kind](environ, number)
    headers = [("X-Request", number), ("X-Pid", PID), ("X-Sum", str(zlib.adler32(body)))]
    return hand_over(environ, start_response, kind, number, body, headers)


def filler(number, length):
    seed = ("%s of %s;" % (number, PID)).encode()
    return (seed * (length // len(seed) + 1))[:length]


def answer_hello(environ, number):
    return filler(number, 40)


def answer_nap(environ, number):
    time.sleep(0.01)
    return filler(number, 40)


def answer_post(environ, number):
    body = environ["wsgi.input"].read()
    if len(body) != int(environ["CONTENT_LENGTH"]):
        return b"the body is not whole"
    return body


def answer_chunked(environ, number):
    return filler(number, 10 * BLOCK)


def answer_generator(environ, number):
    return filler(number, 5 * BLOCK)


def answer_file(environ, number):
    return filler(number, 40000)


def hand_over(environ, start_response, kind, number, body, headers):
    """The body in the way of its kind. A generator notes its end when it is closed; whatever is handed over
    as a whole, when nothing is left to do but to send it."""
    if kind != "chunked":
        headers.append(("Content-Length", str(len(body))))
    start_response("200 OK", headers)
    if kind in ("chunked", "generator"):
        return blocks(body, number)
    append("notes-of-requests", "end %s %s" % (number, PID))
    if kind == "file":
        file = tempfile.TemporaryFile()
        file.write(body)
        file.seek(0)
        return environ["wsgi.file_wrapper"](file)
    return [body]


def blocks(body, number):
    try:
        for at in range(0, len(body), BLOCK):
            yield body[at : at + BLOCK]
    finally:
        append("notes-of-requests", "end %s %s" % (number, PID))
