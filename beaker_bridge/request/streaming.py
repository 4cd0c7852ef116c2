"""Bodies that are made while they are sent, when the headers of the response have left."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from io import BufferedRandom, BufferedReader, BytesIO, FileIO
from typing import Any
from wsgiref.util import FileWrapper

import webob.static
from pyramid.response import FileIter
from webob.response import AppIterRange, EmptyResponse

from beaker_bridge.request.exchange import Exchange

#: Bodies and files whose content is there before it is sent. By their exact types: a subclass may run code of the
#: application's while it is read, as any other object may.
_MADE = frozenset({list, tuple, type(iter([])), type(iter(())), BytesIO, FileIO})
_BUFFERED = frozenset({BufferedReader, BufferedRandom})
#: What reads a file in blocks; a server may have its own in the environ.
_FILE_WRAPPERS = frozenset({FileWrapper, FileIter, webob.static.FileIter})


class StreamedBody:
    """A response's body that is made while it is sent: what it changes in the session is saved.

    That is done when the body has come to its end, for servers that never close it, and again when it is closed, for
    what it does then. A server that counts the bytes may ask for no more when it has them all.

    Args:
        body: the body.
        exchange: the request's.
    """

    def __init__(self, body: Iterable[bytes], exchange: Exchange) -> None:
        self._body = body
        self._exchange = exchange

    def __iter__(self) -> Generator[bytes]:
        exchange, sent = self._exchange, 0
        try:
            for chunk in self._body:
                sent += len(chunk)
                if str(sent) != exchange.body_length:
                    yield chunk
                else:
                    self._end()
                    yield chunk
                    # The server asks for more all the same.
                    exchange.reopen()
        except GeneratorExit:
            # Nothing is committed where the generator is dropped: that may happen anywhere, also in the middle of a
            # store's own work.
            exchange.end()
            raise
        except Exception:
            # The server's matter; what was changed before it stands, as when it is closed.
            self._end()
            raise
        self._end()

    def close(self) -> None:
        """Close the body, and commit the session; a failure is logged."""
        self._exchange.reopen()
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._end()

    def _end(self) -> None:
        exchange = self._exchange
        if exchange.has_pending:
            exchange.commit_late()
        exchange.end()


def is_streamed(body: Iterable[bytes], environ: Mapping[str, Any]) -> bool:
    """Say whether a response's body may be made while it is sent."""
    # Most bodies are lists.
    if type(body) is list:
        return False
    content: Any = _within(body)
    if type(content) in _FILE_WRAPPERS or type(content) is environ.get("wsgi.file_wrapper"):
        # Python's, gunicorn's and mod_wsgi's have the first; Pyramid's, WebOb's and waitress's the second.
        content = getattr(content, "filelike", None) or getattr(content, "file", None)
    if type(content) in _BUFFERED:
        content = content.raw
    return type(content) not in _MADE


def _within(body: Any) -> Any:
    """Return the body within what WebOb puts around one that is sent in part, or not at all."""
    while True:
        if type(body) is AppIterRange:
            body = body.app_iter
        elif type(body) is EmptyResponse:
            # The answer to HEAD, or a 304: it has the headers of a body of which it knows no more than how to close it.
            close = getattr(body, "close", ())
            body = getattr(close, "__self__", close)
        else:
            return body
