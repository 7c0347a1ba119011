"""How a test application talks with its test: notes and gates, both named pipes in the test's directory."""

import os

DIR = os.environ.get("UNDER_TEST_DIR", ".")


def path(name):
    return os.path.join(DIR, name)


def note(text):
    fd = os.open(path("notes"), os.O_WRONLY)
    try:
        os.write(fd, (text + "\n").encode())
    finally:
        os.close(fd)


def wait_at(gate):
    """Returns when the test opens the gate; one opening lets one waiter through."""
    fd = os.open(path(gate), os.O_RDONLY)
    try:
        os.read(fd, 1)
    finally:
        os.close(fd)


def append(name, text):
    """Adds one line to a file of the test, for facts that are counted afterwards."""
    fd = os.open(path(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, (text + "\n").encode())
    finally:
        os.close(fd)
