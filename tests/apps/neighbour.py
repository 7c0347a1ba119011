"""What is asked through the programs in front of a server. `version.py` is the test's."""

import json
import zlib

from talk import wait_at
from version import VERSION


def application(environ, start_response):
    headers = [("Content-Type", "text/plain")]
    if environ["PATH_INFO"] == "/stream":
        # nginx collects what it gets unless it is told not to.
        start_response("200 OK", [*headers, ("X-Accel-Buffering", "no")])
        return stream()
    body = ANSWERS[environ["PATH_INFO"]](environ)
    start_response("200 OK", [*headers, ("Content-Length", str(len(body)))])
    return [body]


def version(environ):
    return VERSION.encode()


def show_environ(environ):
    return json.dumps({key: value for key, value in environ.items() if isinstance(value, str)}).encode()


def sums(environ):
    """Reads in odd pieces and says how much it was and a checksum."""
    total, crc = 0, 0
    while piece := environ["wsgi.input"].read(70001):
        total, crc = total + len(piece), zlib.crc32(piece, crc)
    return b"%d %d" % (total, crc)


def stream():
    yield b"first "
    wait_at("gate")
    yield b"second"


def big(environ):
    return b"0123456789abcdef" * 65536 * 8


ANSWERS = {"/": version, "/environ": show_environ, "/sums": sums, "/big": big}
