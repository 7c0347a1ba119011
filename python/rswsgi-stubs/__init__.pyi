from typing import Any, Final, Protocol, final

__version__: Final[str]

class RequestTimeout(BaseException):
    """The request has taken longer than --request-timeout."""

def extend_deadline(seconds: float) -> float:
    """Gives the running request at least `seconds` more from now on.

    Returns its deadline, of `time.monotonic()`. RuntimeError when no request is running, ValueError
    for seconds that are negative or more than 1e9.
    """

class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...

@final
class FileWrapper:
    """`wsgi.file_wrapper` (PEP 3333)."""

    def __new__(cls, filelike: _Readable, blksize: int = 8192) -> FileWrapper: ...
    @property
    def filelike(self) -> Any: ...
    @property
    def blksize(self) -> int: ...
    def __iter__(self) -> FileWrapper: ...
    def __next__(self) -> bytes: ...
    def close(self) -> None: ...
