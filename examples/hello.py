"""The smallest WSGI application: `rswsgi --chdir examples hello:application`."""


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [b"Hello from rswsgi\n"]
