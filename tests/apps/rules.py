"""PEP 3333, one small application per rule; the first segment of the path picks one."""

import io
import json
import os
import sys

from talk import note, path, wait_at


def application(environ, start_response):
    name = environ["PATH_INFO"].lstrip("/").partition("/")[0].replace("-", "_")
    return globals()["app_" + (name or "hello")](environ, start_response)


def text(start_response, body, status="200 OK", headers=()):
    start_response(status, [("Content-Type", "text/plain"), *headers])
    return [body if isinstance(body, bytes) else body.encode("latin-1")]


class Blocks:
    """An iterable with a close() that tells the test."""

    def __init__(self, blocks, name="closed"):
        self.blocks = iter(blocks)
        self.name = name

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.blocks)

    def close(self):
        note(self.name)


def app_hello(environ, start_response):
    return text(start_response, b"hello\n")


def app_ready_yet(environ, start_response):
    return text(start_response, b"ready")


def app_pid(environ, start_response):
    return text(start_response, str(os.getpid()))


# --- environ


def app_environ(environ, start_response):
    kinds = {key: [type(value).__name__, value if isinstance(value, str) else repr(value)] for key, value in environ.items()}
    kinds["(type)"] = [type(environ).__name__, ""]
    return text(start_response, json.dumps(kinds))


def app_errors(environ, start_response):
    errors = environ["wsgi.errors"]
    errors.write("to the log by write: ")
    errors.write("caf\xe9\n")
    errors.writelines(["to the log by writelines\n", "and one more\n"])
    errors.flush()
    print("to the log by print", file=errors)
    return text(start_response, b"written")


def app_print(environ, start_response):
    print("printed by the application")
    print("printed to stderr", file=sys.stderr)
    return text(start_response, b"printed")


# --- wsgi.input


def app_input(environ, start_response):
    """Applies the method calls of the query string, one after the other, and shows their results."""
    stream = environ["wsgi.input"]
    shown = []
    for call in environ["QUERY_STRING"].split("&"):
        method, *arguments = call.split(",")
        if method == "iter":
            shown.append([line.decode("latin-1") for line in stream])
            continue
        result = getattr(stream, method)(*map(int, arguments))
        if isinstance(result, bytes):
            result = result.decode("latin-1")
        elif isinstance(result, list):
            result = [line.decode("latin-1") for line in result]
        shown.append(result)
    return text(start_response, json.dumps(shown))


def app_sums(environ, start_response):
    """Reads in odd pieces and says how much it was and a checksum."""
    import zlib

    total, crc = 0, 0
    while piece := environ["wsgi.input"].read(70001):
        total, crc = total + len(piece), zlib.crc32(piece, crc)
    return text(start_response, "%d %d" % (total, crc))


def app_readinto(environ, start_response):
    buffer = bytearray(4)
    length = environ["wsgi.input"].readinto(buffer)
    return text(start_response, bytes(buffer[:length]))


def app_unread(environ, start_response):
    return text(start_response, b"not read")


# --- files


def app_file(environ, start_response):
    file = open(path("served"), "rb")
    file.seek(int(environ["QUERY_STRING"] or 0))
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return environ["wsgi.file_wrapper"](file, 8192)


def app_file_with_length(environ, start_response):
    file = open(path("served"), "rb")
    start_response("200 OK", [("Content-Length", environ["QUERY_STRING"])])
    return environ["wsgi.file_wrapper"](file)


def app_file_in_memory(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return environ["wsgi.file_wrapper"](io.BytesIO(b"x" * 100000), 1000)


def app_file_after_write(environ, start_response):
    file = open(path("served"), "rb")
    start_response("200 OK", [("Content-Type", "application/octet-stream")])(b"written ")
    return environ["wsgi.file_wrapper"](file)


class Closing(io.BytesIO):
    def close(self):
        note("file closed")
        super().close()


def app_file_closed(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return environ["wsgi.file_wrapper"](Closing(b"in memory"))


def app_file_unused(environ, start_response):
    """The wrapper is an ordinary iterable, too: what it yields can be changed on the way."""
    wrapped = environ["wsgi.file_wrapper"](io.BytesIO(b"abc" * 1000), 100)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (block.upper() for block in wrapped)


# --- start_response


BAD_CALLS = {
    "status-without-reason-space": ("200OK", []),
    "status-not-a-number": ("abc OK", []),
    "status-too-short": ("20 OK", []),
    "status-too-long": ("2000 OK", []),
    "status-interim": ("100 Continue", []),
    "status-bytes": (b"200 OK", []),
    "status-integer": (200, []),
    "status-crlf": ("200 OK\r\nX-Injected: 1", []),
    "status-newline": ("200 OK\n", []),
    "status-control": ("200 O\x01K", []),
    "headers-tuple-of-three": ("200 OK", [("A", "b", "c")]),
    "headers-string": ("200 OK", "A: b"),
    "headers-none": ("200 OK", None),
    "name-bytes": ("200 OK", [(b"A", "b")]),
    "name-space": ("200 OK", [("A B", "c")]),
    "name-colon": ("200 OK", [("A:", "c")]),
    "name-empty": ("200 OK", [("", "c")]),
    "name-crlf": ("200 OK", [("A\r\nX-Injected", "c")]),
    "value-bytes": ("200 OK", [("A", b"b")]),
    "value-integer": ("200 OK", [("Content-Length", 5)]),
    "value-crlf": ("200 OK", [("A", "b\r\nX-Injected: 1")]),
    "value-newline": ("200 OK", [("A", "b\nX-Injected: 1")]),
    "value-cr": ("200 OK", [("A", "b\rc")]),
    "value-nul": ("200 OK", [("A", "b\0")]),
    "value-control": ("200 OK", [("A", "b\x1f")]),
    "value-delete": ("200 OK", [("A", "b\x7f")]),
    "value-not-latin-1": ("200 OK", [("A", "\u20ac")]),
    "hop-connection": ("200 OK", [("Connection", "close")]),
    "hop-keep-alive": ("200 OK", [("Keep-Alive", "1")]),
    "hop-transfer-encoding": ("200 OK", [("transfer-encoding", "chunked")]),
    "hop-upgrade": ("200 OK", [("Upgrade", "x")]),
    "hop-te": ("200 OK", [("TE", "x")]),
    "hop-trailer": ("200 OK", [("Trailer", "x")]),
    "hop-proxy-authenticate": ("200 OK", [("Proxy-Authenticate", "x")]),
    "length-malformed": ("200 OK", [("Content-Length", "5x")]),
    "length-negative": ("200 OK", [("Content-Length", "-1")]),
    "length-twice": ("200 OK", [("Content-Length", "4"), ("Content-Length", "5")]),
}


def app_bad_call(environ, start_response):
    status, headers = BAD_CALLS[environ["QUERY_STRING"]]
    start_response(status, headers)
    return [b"never"]


def app_bad_call_names(environ, start_response):
    return text(start_response, " ".join(BAD_CALLS))


def app_no_start(environ, start_response):
    return [b"no start_response at all"]


def app_no_start_empty(environ, start_response):
    return []


def app_twice(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"never"]


def app_late(environ, start_response):
    yield b""
    start_response("201 Created", [("Content-Type", "text/plain")])
    yield b""
    yield b"late"


def app_too_late(environ, start_response):
    yield b"first"
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"second"


def app_exc_info(environ, start_response):
    """An error before anything was sent replaces the headers."""
    start_response("200 OK", [("X-First", "1")])
    try:
        raise RuntimeError("handled by the application")
    except RuntimeError:
        start_response("503 Service Unavailable", [("X-Second", "2")], sys.exc_info())
    return [b"replaced"]


def app_exc_info_late(environ, start_response):
    """An error after bytes were sent: start_response raises it again."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"sent"
    wait_at("gate")
    try:
        raise RuntimeError("too late to be hidden")
    except RuntimeError:
        start_response("500 Oops", [], sys.exc_info())
    yield b"never"


def app_write(environ, start_response):
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"by write, ")
    note("written")
    wait_at("gate")
    write(b"again, ")
    return [b"by iterable"]


def app_write_length(environ, start_response):
    write = start_response("200 OK", [("Content-Length", "10")])
    write(b"12345")
    write(b"67890")
    return []


def app_write_text(environ, start_response):
    write = start_response("200 OK", [])
    write("not bytes")
    return []


# --- bodies


def app_steps(environ, start_response):
    """Waits at the gate between its two blocks."""
    start_response("200 OK", [("Content-Type", "text/plain")])

    def blocks():
        yield b"first "
        wait_at("gate")
        yield b"second"

    return Blocks(blocks())


def app_length_one(environ, start_response):
    return text(start_response, b"one block")


def app_length_many(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return iter([b"several ", b"", b"blocks"])


def app_list_of_many(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"a ", b"list ", b"of blocks"]


def app_empty(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return []


def app_empty_generator(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield from ()


def app_more(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return Blocks([b"12345", b"HTTP/1.1 200 Forged\r\n\r\n"])


def app_more_in_block(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"12345HTTP/1.1 200 Forged\r\n\r\n"]


def app_less(environ, start_response):
    start_response("200 OK", [("Content-Length", "50")])
    return Blocks([b"12345", b"67890"])


def app_bodiless(environ, start_response):
    """A status without a body, from an application that yields one."""
    start_response(environ["QUERY_STRING"] + " X", [("X-Kept", "1")])
    return Blocks([b"must not ", b"be seen"])


def app_not_modified(environ, start_response):
    start_response("304 Not Modified", [("ETag", '"x"'), ("Content-Length", "1234")])
    return []


def app_closes(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Blocks([b"some ", b"blocks"])


def app_cookies(environ, start_response):
    return text(start_response, b"", headers=[("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2"), ("X-Latin", "caf\xe9")])


def app_own_headers(environ, start_response):
    return text(start_response, b"own", headers=[("Date", "Sat, 01 Jan 2000 00:00:00 GMT"), ("Server", "mine")])


def app_big(environ, start_response):
    size = int(environ["QUERY_STRING"])
    note("big")
    return text(start_response, b"x" * size, headers=[("Content-Length", str(size))])


def app_waiting(environ, start_response):
    """More than a Unix socket holds, less than the server keeps; the client reads after the note."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    for _ in range(8):
        yield b"x" * 100000
    note("all is given")


def app_endless(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])

    def blocks():
        while True:
            yield b"x" * 65536

    return Blocks(blocks())


def app_text_body(environ, start_response):
    start_response("200 OK", [])
    return ["not bytes"]


def app_none(environ, start_response):
    start_response("200 OK", [])
    return None


def app_subclass(environ, start_response):
    """bytearray is not bytes (PEP 3333), a subclass of bytes is."""

    class Sub(bytes):
        pass

    start_response("200 OK", [("Content-Type", "text/plain")])
    return [Sub(b"sub"), Sub(b"class")]


# --- failures


def app_raise(environ, start_response):
    raise LookupError("raised at once")


def app_raise_started(environ, start_response):
    start_response("200 OK", [("X-Lost", "1")])
    raise LookupError("raised after start_response")


def app_raise_first(environ, start_response):
    start_response("200 OK", [("X-Lost", "1")])

    def blocks():
        raise LookupError("raised for the first block")
        yield b""

    return Blocks(blocks())


def app_raise_later(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])

    def blocks():
        yield b"sent"
        wait_at("gate")
        raise LookupError("raised after a block")

    return Blocks(blocks())


def app_raise_later_length(environ, start_response):
    start_response("200 OK", [("Content-Length", "100")])

    def blocks():
        yield b"sent"
        wait_at("gate")
        raise LookupError("raised after a block")

    return Blocks(blocks())


def app_raise_in_close(environ, start_response):
    class Bad(Blocks):
        def close(self):
            raise LookupError("raised by close")

    start_response("200 OK", [("Content-Type", "text/plain")])
    return Bad([b"all ", b"sent"])


def app_leave(environ, start_response):
    """Ends the interpreter, if the server lets it."""
    how = environ["QUERY_STRING"]
    if how == "exit":
        sys.exit(3)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "generator":
        raise GeneratorExit
    start_response("200 OK", [])

    def blocks():
        sys.exit("from a generator")
        yield b""

    return blocks()


def app_recursion(environ, start_response):
    return app_recursion(environ, start_response)


# --- wsgiref.validate around what frameworks do


def app_valid(environ, start_response):
    from wsgiref.validate import validator

    return validator(valid)(environ, start_response)


def valid(environ, start_response):
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0)) if environ.get("CONTENT_LENGTH") else b""
    environ["wsgi.errors"].flush()
    if environ["QUERY_STRING"] == "empty":
        start_response("204 No Content", [])
        return []
    if environ["QUERY_STRING"] == "write":
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"written ")
        return [body]
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [b"valid ", body]
