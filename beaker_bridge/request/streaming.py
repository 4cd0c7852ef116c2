"""Bodies that are made while they are sent, when the headers of the response have left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from io import BufferedRandom, BufferedReader, BytesIO, FileIO
from typing import Any
from wsgiref.util import FileWrapper

import webob.static
from beaker.session import SessionObject as BeakerSessionObject
from pyramid.response import FileIter
from webob.response import AppIterRange, EmptyResponse

from beaker_bridge.request.exchange import commit_late, let_go, needs_commit

#: In the state of a session: the length of the response's body, as its headers have it.
LENGTH = "length"

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
        session_object: the environ's session.
    """

    def __init__(self, body: Iterable[bytes], session_object: BeakerSessionObject) -> None:
        self._body = body
        self._object = session_object

    def __iter__(self) -> Iterator[bytes]:
        state = self._object.__dict__
        sent = 0
        try:
            for chunk in self._body:
                sent += len(chunk)
                if str(sent) == state.get(LENGTH):
                    self._commit()
                yield chunk
        except Exception:
            # The server's matter; what was changed before it stands, as when it is closed.
            self._commit()
            raise
        # Not where the generator is dropped: that may happen anywhere, also in the middle of a store's own work.
        self._commit()

    def close(self) -> None:
        """Close the body, and commit the session; a failure is logged."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._commit()
            let_go(self._object)

    def _commit(self) -> None:
        if needs_commit(self._object):
            commit_late(self._object)


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


def length_of(headers: Iterable[tuple[str, str]]) -> str | None:
    """Return the length of a body, in bytes, as its headers have it; None where they have none."""
    return next((value for name, value in headers if name.lower() == "content-length"), None)
