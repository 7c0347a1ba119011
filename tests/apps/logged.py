"""The application of the tests of logs: ends requests in every way there is."""

import os
import sys
import time

from talk import note, wait_at


def application(environ, start_response):
    answer = globals()["answer_" + environ["PATH_INFO"].strip("/").replace("-", "_")]
    return answer(environ, start_response)


def plain(start_response, body, *headers):
    start_response("200 OK", [("Content-Type", "text/plain"), *headers])
    return [body]


def answer_hello(environ, start_response):
    return plain(start_response, b"hello\n", ("X-Answer", 'a "quoted" one'))


def answer_pid(environ, start_response):
    return plain(start_response, str(os.getpid()).encode())


def answer_id(environ, start_response):
    return plain(start_response, environ.get("rswsgi.request_id", "none").encode())


def answer_boom(environ, start_response):
    raise ValueError("provoked")


def answer_late_boom(environ, start_response):
    start_response("200 OK", [])
    yield b"some"
    raise ValueError("provoked")


def answer_short(environ, start_response):
    return plain(start_response, b"abc", ("Content-Length", "10"))


def answer_sleep(environ, start_response):
    time.sleep(3600)


def answer_exit(environ, start_response):
    os._exit(7)


def answer_leave(environ, start_response):
    os._exit(0)


def answer_wait(environ, start_response):
    note("waiting %d" % os.getpid())
    wait_at("gate")
    return plain(start_response, b"waited")


def answer_big(environ, start_response):
    return plain(start_response, b"x" * (16 << 20))


def answer_upload(environ, start_response):
    return plain(start_response, b"%d" % len(environ["wsgi.input"].read()))


def answer_print(environ, start_response):
    print("printed to stdout")
    print("printed to stderr", file=sys.stderr)
    return plain(start_response, b"printed")
