"""The attributes of Beaker's sessions: those that one session can have, and what to use instead of the others."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from beaker_bridge.exceptions import SessionAttributeError


class ReadOnly(property):
    """An attribute that can be read; setting it raises, since it would have no effect.

    Args:
        read: returns its value in a session.
        instead: what to use instead of setting it.
    """

    def __init__(self, read: Callable[[Any], Any], instead: str) -> None:
        super().__init__(read)
        self._instead = instead

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __set__(self, session: Any, value: object) -> None:
        raise SessionAttributeError(f"{self._name} cannot be set for one session: use {self._instead}", name=self._name)

    def __delete__(self, session: Any) -> None:
        self.__set__(session, None)


class Absent(ReadOnly):
    """An attribute or method that our sessions do not have.

    Args:
        instead: what to use instead.
    """

    def __init__(self, instead: str) -> None:
        super().__init__(self._refuse, instead)

    def _refuse(self, _session: Any) -> Any:
        raise SessionAttributeError(f"a session has no {self._name} here: use {self._instead}", name=self._name)


def _option(name: str) -> ReadOnly:
    return ReadOnly(attrgetter(f"_config.options.{name}"), f"the option {name}")


def _of_cookie(name: str) -> property:
    """Return an attribute of the cookie; a value that is set counts for the cookie of this response."""

    def read(session: Any) -> Any:
        return session.cookie_option(name)

    def write(session: Any, value: object) -> None:
        session.set_cookie_option(name, value)

    return property(read, write)


class BeakerAttributes:
    """Attributes and methods of Beaker's ``Session`` and ``CookieSession`` that ours treats in another way."""

    __slots__ = ()

    cookie_expires = _of_cookie("cookie_expires")
    secure = _of_cookie("secure")
    httponly = _of_cookie("httponly")
    samesite = _of_cookie("samesite")

    timeout = ReadOnly(attrgetter("_timeout"), "set_expiry(seconds), or the option timeout")
    key = _option("key")
    use_cookies = _option("use_cookies")
    type = _option("type")
    data_dir = _option("data_dir")
    namespace_class = _option("namespace_class")
    data_serializer = _option("data_serializer")
    invalidate_corrupt = _option("invalidate_corrupt")
    save_atime = ReadOnly(attrgetter("_config.options.save_accessed_time"), "the option save_accessed_time")

    secret = Absent("the option secret")
    encrypt_key = Absent("the option encrypt_key")
    validate_key = Absent("the option validate_key")
    encrypt_nonce_size = Absent("the option encrypt_nonce_bits")
    crypto_module = Absent("the option crypto_type")
    serializer = Absent("the option data_serializer")
    namespace = Absent("get_by_id()")
    namespace_args = Absent("the option url, or the others of the store")
    cookie = Absent("cookie_expires, secure, httponly, samesite, domain or path, or set_expiry()")
    accessed_dict = Absent("revert()")
    # A method of Beaker's cookie sessions before 1.14.
    expire = Absent("set_expiry(None)")
    lock = Absent("with exclusive():")
    unlock = Absent("with exclusive():")
    _create_id = Absent("regenerate_id()")
    _create_cookie = Absent("save()")
    _delete_cookie = Absent("delete()")
    _encrypt_data = Absent("the option encrypt_key")
    _decrypt_data = Absent("the option encrypt_key")
    _set_serializer = Absent("the option data_serializer")
    _set_cookie_http_only = Absent("httponly")


#: The names of these attributes.
BEAKERS = tuple(name for name, attribute in vars(BeakerAttributes).items() if isinstance(attribute, property))
#: Private names that ``request.session`` forwards, since applications use them with Beaker.
PRIVATE = frozenset(name for name in BEAKERS if name.startswith("_")) | {
    "_get_domain",
    "_get_path",
    "_session",
    "_set_cookie_expires",
    "_set_cookie_values",
    "_set_domain",
    "_set_path",
    "_update_cookie_out",
}


class Forwarded:
    """An attribute of the session behind ``request.session``.

    Args:
        name: the attribute.
    """

    def __init__(self, name: str) -> None:
        self._of = attrgetter(name)
        self._name = name

    def __get__(self, session: Any, owner: type | None = None) -> Any:
        return self if session is None else self._of(session._loaded)

    def __set__(self, session: Any, value: object) -> None:
        setattr(session._loaded, self._name, value)
