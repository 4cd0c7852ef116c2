"""Who is logged in, and where: log in and out, the list of a user's browsers, and the password."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any, NamedTuple, NoReturn

from pyramid.httpexceptions import HTTPFound
from pyramid.view import view_config

from beaker_bridge import UserSession, revoke, revoke_one, user_sessions
from sample_app.accounts import PASSWORD_SIZES
from sample_app.browsers import note_of

#: The longest name that a visitor can have, in characters.
NAME_SIZE = 40
#: The queue of the messages that say what went wrong.
PROBLEMS = "problems"


# -- Log in and out ----------------------------------------------------------------------------------


@view_config(route_name="login", request_method="GET", renderer="templates/login.jinja2", http_cache=0)
def login_form(_request: Any) -> dict[str, Any]:
    """Show the form."""
    return {"name_size": NAME_SIZE, "password_size": PASSWORD_SIZES[1]}


@view_config(route_name="login", request_method="POST")
def login(request: Any) -> NoReturn:
    """Log in whoever gives a name, and its password if it has one."""
    session = request.session
    name = request.POST.get("name", "").strip()[:NAME_SIZE]
    if not name:
        session.flash("Please tell us your name.", PROBLEMS)
        raise HTTPFound(request.route_path("login"))
    if not request.registry.accounts.admits(name, request.POST.get("password", "")):
        session.flash("That name has another password.", PROBLEMS)
        raise HTTPFound(request.route_path("login"))
    # A new id: whoever has learned the old one does not become the user.
    session.regenerate_id()
    session["user"] = name
    # From now on it is one of the sessions of that user.
    session.bind(name, note=note_of(request))
    session.flash(f"Welcome, {name}! Your session has a new id now.")
    raise HTTPFound(request.route_path("home"))


@view_config(route_name="logout", request_method="POST")
def logout(request: Any) -> NoReturn:
    """Log out: the session is deleted. The message goes into the new one."""
    request.session.invalidate()
    request.session.flash("You are logged out, and your session is gone.")
    raise HTTPFound(request.route_path("home"))


def user_of(request: Any) -> str:
    """Return the name of the user who is logged in.

    Raises:
        HTTPFound: nobody is: to the login.
    """
    user: str | None = request.session.get("user")
    if user is None:
        raise HTTPFound(request.route_path("login"))
    return user


# -- Where you are logged in -------------------------------------------------------------------------


class Login(NamedTuple):
    """One entry of the list, as the page shows it."""

    handle: str
    browser: str
    place: str
    is_current: bool
    created: datetime
    last_seen: datetime
    #: How long ago it was last seen, in words.
    seen: str


@view_config(route_name="sessions", renderer="templates/sessions.jinja2", http_cache=0)
def where_logged_in(request: Any) -> dict[str, Any]:
    """List the browsers in which the user is logged in: this one first, then those that were seen last."""
    found = user_sessions(request, user_of(request))
    found.sort(key=lambda each: (each.is_current, each.last_seen or each.created), reverse=True)
    return {"logins": [_shown(each) for each in found]}


def _shown(session: UserSession) -> Login:
    note, last_seen = session.note or {}, session.last_seen or session.created
    return Login(
        session.handle,
        note.get("browser", "Another browser"),
        note.get("place", ""),
        session.is_current,
        _time(session.created),
        _time(last_seen),
        "now" if session.is_current else ago(time.time() - last_seen),
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=timezone.utc)


def ago(seconds: float) -> str:
    """Return in words how long ago something was.

    Args:
        seconds: how long ago.
    """
    for unit, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        count = int(seconds // unit)
        if count > 0:
            return f"{count} {name}{'s' if count > 1 else ''} ago"
    return "just now"


@view_config(route_name="end_session", request_method="POST")
def end_session(request: Any) -> NoReturn:
    """Log the user out in one other browser."""
    user, handle = user_of(request), request.POST.get("handle", "")
    # Only the user's own: a handle may come from anywhere.
    chosen = next((each for each in user_sessions(request, user) if each.handle == handle), None)
    if chosen is not None and revoke_one(request, handle):
        request.session.flash(f"{_shown(chosen).browser} is logged out.")
    else:
        request.session.flash("That browser was logged out before.")
    raise HTTPFound(request.route_path("sessions"))


@view_config(route_name="end_other_sessions", request_method="POST")
def end_other_sessions(request: Any) -> NoReturn:
    """Log the user out everywhere else."""
    ended = revoke(request, user_of(request), except_current=True)
    request.session.flash(f"You are logged out {_elsewhere(ended)}.")
    raise HTTPFound(request.route_path("sessions"))


def _elsewhere(ended: int) -> str:
    return (
        f"in {ended} other browser{'s' if ended > 1 else ''}"
        if ended
        else "everywhere else: there was no other browser"
    )


# -- The password ------------------------------------------------------------------------------------


@view_config(route_name="password", request_method="GET", renderer="templates/password.jinja2", http_cache=0)
def password_form(request: Any) -> dict[str, Any]:
    """Show the form."""
    user = user_of(request)
    shortest, longest = PASSWORD_SIZES
    return {
        "user": user,
        "has_password": request.registry.accounts.has_password(user),
        "shortest": shortest,
        "longest": longest,
    }


@view_config(route_name="password", request_method="POST")
def change_password(request: Any) -> NoReturn:
    """Set a new password, and log the user out everywhere else: who knew the old one may be logged in there."""
    user, accounts = user_of(request), request.registry.accounts
    shortest, longest = PASSWORD_SIZES
    new = request.POST.get("new", "")
    problem = None
    if not accounts.admits(user, request.POST.get("current", "")):
        problem = "That is not your current password."
    elif not shortest <= len(new) <= longest:
        problem = f"Please choose a password of {shortest} to {longest} characters."
    if problem:
        request.session.flash(problem, PROBLEMS)
        raise HTTPFound(request.route_path("password"))
    accounts.set_password(user, new)
    ended = revoke(request, user, except_current=True)
    request.session.regenerate_id()
    request.session.flash(f"Your password is changed, and you are logged out {_elsewhere(ended)}.")
    raise HTTPFound(request.route_path("sessions"))
