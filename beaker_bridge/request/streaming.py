"""Streamed bodies: those that are made while they are sent, after the headers of the response."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from io import BufferedRandom, BufferedReader, BytesIO, FileIO
from typing import Any
from wsgiref.util import FileWrapper

import webob.static
from pyramid.response import FileIter
from webob.response import AppIterRange, EmptyResponse

from beaker_bridge.request.exchange import Exchange

#: Types of bodies and files whose content is there before it is sent. Compare exact types: a subclass may run code of
#: the application while it is read.
_MADE = frozenset({list, tuple, type(iter([])), type(iter(())), BytesIO, FileIO})
_BUFFERED = frozenset({BufferedReader, BufferedRandom})
#: Types that read a file in blocks; a server may have its own in the environ.
_FILE_WRAPPERS = frozenset({FileWrapper, FileIter, webob.static.FileIter})


class StreamedBody:
    """A streamed body: what it changes in the session is saved.

    Commit at the end of the body, for servers that never close it, and when it is closed, for changes that it makes
    then. Commit also before the last chunk, since a server that counts bytes may ask for no more.

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
                    # Reopen it: this server asks for more.
                    exchange.reopen()
        except GeneratorExit:
            # Commit nothing when the generator is dropped: that may happen anywhere, even within a store's own work.
            exchange.end()
            raise
        except Exception:
            # Commit what was changed before the error, which is for the server to handle.
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
        self._exchange.commit_late()
        self._exchange.end()


def is_streamed(body: Iterable[bytes], environ: Mapping[str, Any]) -> bool:
    """Say whether a response's body may be made while it is sent."""
    # Take the short way: most bodies are lists.
    if type(body) is list:
        return False
    content: Any = _within(body)
    if type(content) in _FILE_WRAPPERS or type(content) is environ.get("wsgi.file_wrapper"):
        # Try both names: Python, gunicorn and mod_wsgi use the first; Pyramid, WebOb and waitress the second.
        content = getattr(content, "filelike", None) or getattr(content, "file", None)
    if type(content) in _BUFFERED:
        content = content.raw
    return type(content) not in _MADE


def _within(body: Any) -> Any:
    """Return the body inside WebOb's wrappers for one that is sent in part, or not at all."""
    while True:
        if type(body) is AppIterRange:
            body = body.app_iter
        elif type(body) is EmptyResponse:
            # Unwrap an answer to HEAD, or a 304: it has the body's headers, and of the body only its close().
            close = getattr(body, "close", ())
            body = getattr(close, "__self__", close)
        else:
            return body
