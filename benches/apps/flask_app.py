"""A framework on top: what remains of a server's advantage when the application costs something."""

from flask import Flask

application = Flask(__name__)


@application.get("/hello")
def hello():
    return "Hello, world!\n", {"Content-Type": "text/plain"}
