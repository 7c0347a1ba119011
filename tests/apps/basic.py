"""The application of the HTTP tests: says what it was asked, and tells the test that it was called."""

import json
import os

from talk import note, wait_at


def application(environ, start_response):
    path = environ["PATH_INFO"]
    answer = ANSWERS.get(path, called)
    status, body = answer(environ)
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def hello(environ):
    return "200 OK", b"hello\n"


def pid(environ):
    return "200 OK", str(os.getpid()).encode()


def echo(environ):
    return "200 OK", environ["wsgi.input"].read()


def called(environ):
    """Notes the method, the path and the length of the body, for tests that ask whether the app was reached."""
    body = environ["wsgi.input"].read()
    note("%s %s %d" % (environ["REQUEST_METHOD"], environ["PATH_INFO"], len(body)))
    return "200 OK", b"called"


def wait(environ):
    """Says where it runs, then waits until the test lets it go on."""
    note("waiting %d" % os.getpid())
    wait_at("gate")
    return "200 OK", str(os.getpid()).encode()


def show_environ(environ):
    shown = {key: value if isinstance(value, (str, bool)) else repr(value) for key, value in environ.items()}
    return "200 OK", json.dumps(shown).encode("ascii")


def ready_yet(environ):
    return "200 OK", b"ready"


ANSWERS = {
    "/hello": hello,
    "/pid": pid,
    "/echo": echo,
    "/wait": wait,
    "/environ": show_environ,
    "/ready-yet": ready_yet,
}
