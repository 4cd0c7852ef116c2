"""How far a request walks through the package: which rooms and files it enters, and how often it changes."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from pyramid.request import Request

import beaker_bridge
from tests.installations import Views, install, store_options

_PACKAGE = f"{Path(beaker_bridge.__file__).parent}/"


class Walk(NamedTuple):
    """What a request enters, and how often it goes from one to another."""

    rooms: int
    room_changes: int
    files: int
    file_changes: int


def _file_of(frame):
    """Return the file of the package that a frame is in, or that has called it."""
    while frame is not None and not frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return frame and frame.f_code.co_filename.removeprefix(_PACKAGE)


def _changes(places):
    return sum(one != other for one, other in pairwise(places))


def walk_of(app, environ):
    """Return how far one request walks, calls and returns counted."""
    files = []

    def step(frame, event, _argument):
        if event in ("call", "return"):
            file = _file_of(frame if event == "call" else frame.f_back)
            if file:
                files.append(file)

    before = sys.getprofile()
    sys.setprofile(step)
    try:
        app(environ, lambda *_: None)
    finally:
        sys.setprofile(before)
    rooms = [file.partition("/")[0] for file in files]
    return Walk(len(set(rooms)), _changes(rooms), len(set(files)), _changes(files))


def read(request):
    return request.session.get("count")


def write(request):
    request.session["count"] = 1
    return ""


def login(request):
    request.session.regenerate_id()
    request.session["user"] = "ada"
    return ""


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("/untouched", Walk(3, 6, 3, 6)),
        ("/read", Walk(7, 24, 12, 38)),
        ("/write", Walk(7, 36, 13, 60)),
        ("/login", Walk(7, 46, 14, 86)),
    ],
)
def test_nobody_walks_in_circles(tmp_path, path, most):
    """A warm request behind our filter enters few rooms and files, and goes from one to another seldom."""
    views = Views(untouched=lambda _request: "", read=read, write=write, login=login)
    app = install("filter", store_options("memory", tmp_path), views)
    cookies = {}

    def environ(path):
        return Request.blank(path, cookies=cookies).environ

    for _ in range(3):
        headers = Request.blank("/write").get_response(app).headers
        cookies["sid"] = headers["Set-Cookie"].partition(";")[0].partition("=")[2]
        app(environ(path), lambda *_: None)
    headers = Request.blank("/write").get_response(app).headers
    cookies["sid"] = headers["Set-Cookie"].partition(";")[0].partition("=")[2]
    walk = walk_of(app, environ(path))

    assert all(one <= other for one, other in zip(walk, most, strict=True)), walk
