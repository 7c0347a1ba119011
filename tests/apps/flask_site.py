"""A Flask site that does what sites do: forms, sessions, JSON, uploads, downloads in three ways."""

import os
import sys
from wsgiref.validate import validator

import talk
from flask import Flask, Response, abort, jsonify, redirect, request, send_file, session, url_for
from werkzeug.middleware.proxy_fix import ProxyFix

BLOCK = 64 * 1024

app = Flask(__name__)
app.secret_key = "only a test"
app.wsgi_app = ProxyFix(app.wsgi_app)


@app.get("/")
def index():
    return "a page of Flask\n"


@app.get("/about")
def about():
    """What the site knows of the request and of where it runs."""
    return jsonify(
        python=list(sys.version_info[:2]),
        prefix=sys.prefix,
        module=sys.modules["rswsgi"].__file__,
        client=request.remote_addr,
        scheme=request.scheme,
        host=request.host,
        args=request.args.to_dict(flat=False),
        cookies=request.cookies.to_dict(flat=False),
    )


@app.get("/greet/<name>")
def greet(name):
    return f"hello, {name}\n"


@app.get("/visit")
def visit():
    session["visits"] = session.get("visits", 0) + 1
    return f"{session['visits']}\n"


@app.get("/leave")
def leave():
    session.clear()
    return redirect(url_for("visit"))


@app.post("/json")
def json():
    rows = request.get_json()["rows"]
    return jsonify(count=len(rows), total=sum(row["number"] for row in rows), last=rows[-1])


@app.post("/form")
def form():
    file = request.files["file"]
    file.save(talk.path("received"))
    return jsonify(note=request.form["note"], name=file.filename, type=file.mimetype)


@app.route("/raw", methods=["POST", "PUT"])
def raw():
    """The body in blocks, as it is; also one whose length nobody told."""
    size = 0
    with open(talk.path("received"), "wb") as out:
        while block := request.stream.read(BLOCK):
            size += len(block)
            out.write(block)
    return jsonify(size=size, length=request.content_length, terminated=request.environ["wsgi.input_terminated"])


@app.get("/stream")
def stream():
    """A file of the test in blocks, without saying how long it is."""

    def blocks():
        with open(talk.path("sent"), "rb") as file:
            while block := file.read(BLOCK):
                yield block

    return Response(blocks(), mimetype="application/octet-stream")


@app.get("/file")
def file():
    """The same with Last-Modified, ETag and ranges, by wsgi.file_wrapper."""
    return send_file(talk.path("sent"), mimetype="application/octet-stream", conditional=True, etag=True)


@app.get("/events")
def events():
    def blocks():
        yield "data: first\n\n"
        talk.wait_at("gate")
        yield "data: second\n\n"

    # nginx passes on what it gets when it is told so.
    return Response(blocks(), mimetype="text/event-stream", headers={"X-Accel-Buffering": "no"})


@app.get("/tagged")
def tagged():
    response = Response("a page with a tag\n", mimetype="text/plain")
    response.set_etag("v1")
    return response.make_conditional(request)


@app.get("/nothing")
def nothing():
    response = app.response_class(status=204)
    del response.content_type  # RFC 9110 does not forbid it, wsgiref.validate does
    return response


@app.get("/teapot")
def teapot():
    abort(418)


@app.get("/broken")
def broken():
    raise LookupError("a view that raises")


@app.errorhandler(404)
def not_found(error):
    return f"no {request.path} here\n", 404


@app.get("/where")
def where():
    return f"{os.getpid()}\n"


validated = validator(app)
