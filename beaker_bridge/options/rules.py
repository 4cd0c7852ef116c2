"""Rules between options: which option requires another one, and which excludes it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from beaker.cache import clsmap

from beaker_bridge.options.rows import Table
from beaker_bridge.options.table import SessionOptions, StoreOptions
from beaker_bridge.options.third_party import third_party_types
from beaker_bridge.options.types import (
    CLUSTER,
    COOKIE,
    COOKIE_DOMAIN,
    DATABASE,
    DBM,
    DOMAIN_RULE,
    FILE,
    MEMCACHED,
    MONGODB,
    REDIS,
    SQLA,
    crypto_module,
)

#: Cookie name prefixes, in lower case (RFC 6265bis, 4.1.3): browsers accept all of them over https only, the second
#: from one host only, and those with "http" only where JavaScript neither sets nor reads the cookie.
SECURE_PREFIX, HOST_PREFIX, HTTP_PREFIX, HOST_HTTP_PREFIX = "__secure-", "__host-", "__http-", "__host-http-"
COOKIE_PREFIXES = (SECURE_PREFIX, HOST_PREFIX, HTTP_PREFIX)
#: The address or directory that a store type requires: one option of each group.
NEEDED = {
    FILE: (("data_dir", "file_dir"), ("data_dir", "lock_dir")),
    DBM: (("data_dir", "dbm_dir"), ("data_dir", "lock_dir")),
    REDIS: (("url",),),
    CLUSTER: (("urls",),),
    MEMCACHED: (("url",),),
    DATABASE: (("url", "sa.url"),),
    SQLA: (("bind", "url"), ("table",)),
    MONGODB: (("url",),),
}


class Fault(NamedTuple):
    """An option that breaks a rule, and the other options of the rule."""

    name: str
    rule: str
    others: tuple[str, ...] = ()


# -- Stores -----------------------------------------------------------------------------------------


def type_faults(options: StoreOptions, table: Table) -> Iterator[Fault]:
    """Yield a fault if there is no store of the type: neither ours, nor another distribution's, nor Beaker's."""
    # Other distributions' stores hold sessions: Beaker's regions cannot use them.
    others = third_party_types() if isinstance(options, SessionOptions) else []
    if options.type not in (*table.types, *others) and not backend_exists(options.type):
        types = table.types.union(NEEDED, others)
        names = {name: name for name in clsmap._clsmap} | {name.removeprefix("ext:"): name for name in types}
        names |= {name: name for name in types}
        nearest = difflib.get_close_matches(options.type.lower(), names, n=1)
        meant = "".join(f" (did you mean {names[name]}?)" for name in nearest)
        yield Fault("type", f"one of {', '.join(sorted(types))} or another backend of Beaker's{meant}")


def backend_exists(kind: str) -> bool:
    """Return whether Beaker has a backend of this name; for one that failed to load it keeps the exception."""
    try:
        return callable(clsmap[kind])
    except KeyError:
        return False


def store_faults(options: StoreOptions) -> Iterator[Fault]:
    """Yield the broken rules between valid options of a store."""
    kind, label = options.type, options.label
    logins = [name for name in ("username", "password") if getattr(options, name) is not None]
    if kind == MEMCACHED and logins:
        also = "".join(f" (and {label(name)})" for name in logins[1:])
        rule = f"absent{also} where {label('type')} = {kind}, which is asked without a login (SASL): run it where only"
        yield Fault(logins[0], f"{rule} the application reaches it, or take {REDIS}", ("type", *logins[1:]))
    engine = options.sa_opts or {}
    missing: set[str] = set()
    for names in NEEDED.get(kind, ()):
        # Compare with None: an SQLAlchemy Table has no truth value.
        found = [engine.get(name) if name in engine else getattr(options, name, None) for name in names]
        is_given = any(value is not None and value != "" for value in found)
        if not is_given and missing.isdisjoint(names):
            missing.update(names)
            instead = "".join(f", or {label(name)}" for name in names[1:])
            yield Fault(names[0], f"given where {label('type')} = {kind}{instead}", ("type", *names[1:]))


def type_of_address(name: str, value: Any) -> str | None:
    """Return the store type that an address or a directory is for; None for any other option."""
    if name == "url":
        return _type_of_url(value)
    stores = {"file_dir": FILE, "dbm_dir": DBM, "urls": CLUSTER, "sa.url": DATABASE, "bind": SQLA}
    if name == "sa_opts":
        return DATABASE if isinstance(value, Mapping) and {"url", "sa.url"} & set(value) else None
    return stores.get(name)


def _type_of_url(value: Any) -> str:
    if not isinstance(value, str):
        module = type(value).__module__.partition(".")[0]
        return {"redis": REDIS, "pymongo": MONGODB}.get(module, DATABASE)
    scheme, separator, _ = value.strip().lower().partition("://")
    if not separator or scheme.startswith("memcache"):
        return MEMCACHED
    if scheme in ("redis", "rediss", "unix", "redis+sentinel"):
        return REDIS
    return MONGODB if scheme.startswith("mongodb") else DATABASE


# -- Sessions ---------------------------------------------------------------------------------------


def session_faults(options: SessionOptions) -> Iterator[Fault]:
    """Yield the broken rules between valid options of a session."""
    for rules in (store_faults, _time_faults, _cookie_faults, _key_faults):
        yield from rules(options)


def _time_faults(options: SessionOptions) -> Iterator[Fault]:
    if options.timeout and not options.save_accessed_time:
        yield Fault("save_accessed_time", f"true where {options.label('timeout')} is set", ("timeout",))
    for name, seconds in (("timeout", options.timeout), ("cookie_expires", options.cookie_lifetime)):
        if seconds and options.reissue_time and options.reissue_time >= seconds:
            yield Fault("reissue_time", f"less than {options.label(name)} ({seconds} seconds)", (name,))


def _cookie_faults(options: SessionOptions) -> Iterator[Fault]:
    if options.samesite == "None" and options.secure is not True:
        yield Fault("samesite", f"Lax or Strict unless {options.label('secure', 'samesite')} = true", ("secure",))
    if options.cookie_domain and not COOKIE_DOMAIN.fullmatch(options.cookie_domain):
        yield Fault("cookie_domain", DOMAIN_RULE)
    if options.partitioned and options.secure is not True:
        yield Fault("partitioned", f"false unless {options.label('secure', 'partitioned')} = true", ("secure",))
    key = options.key.lower()
    if key.startswith(COOKIE_PREFIXES) and options.secure is not True:
        yield Fault("secure", f"true for a cookie named {options.key}", ("key",))
    if key.startswith((HTTP_PREFIX, HOST_HTTP_PREFIX)) and not options.httponly:
        yield Fault("httponly", f"true for a cookie named {options.key}", ("key",))
    if key.startswith(HOST_PREFIX) and options.cookie_domain:
        yield Fault("cookie_domain", f"absent for a cookie named {options.key}", ("key",))
    if key.startswith(HOST_PREFIX) and options.cookie_path != "/":
        yield Fault("cookie_path", f"/ for a cookie named {options.key}", ("key",))


def _key_faults(options: SessionOptions) -> Iterator[Fault]:
    label = options.label
    if options.type == COOKIE and not options.validate_key:
        yield Fault("validate_key", f"given where {label('type')} = cookie, which it signs", ("type",))
    for retired, current in (
        ("previous_secrets", "secret"),
        ("previous_validate_keys", "validate_key"),
        ("previous_encrypt_keys", "encrypt_key"),
    ):
        if getattr(options, retired) and not getattr(options, current):
            yield Fault(current, f"given where {label(retired)} are", (retired,))
    if options.encrypt_key:
        yield from _encryption_faults(options)


def _encryption_faults(options: SessionOptions) -> Iterator[Fault]:
    encrypt_key = options.label("encrypt_key")
    if not options.validate_key and options.type != COOKIE:
        yield Fault("validate_key", f"given where {encrypt_key} is", ("encrypt_key",))
    for name in ("encrypt_key", "validate_key", "previous_encrypt_keys", "previous_validate_keys"):
        # Beaker derives the cipher's key from them, and accepts ASCII only.
        if not "".join(getattr(options, name) or ()).isascii():
            yield Fault(name, f"in ASCII where {encrypt_key} is given", ("encrypt_key",))
    try:
        module: Any = crypto_module(options.crypto_type)
    except Exception:  # noqa: BLE001 -- Beaker raises ImportError, or what a broken library raises
        module = None
    if not getattr(module, "has_aes", False):
        rule = f"a cipher that can be loaded where {encrypt_key} is given (pip install cryptography)"
        yield Fault("crypto_type", rule, ("encrypt_key",))
    elif getattr(module, "__name__", "") != "beaker.crypto.pyca_cryptography":
        yield from _unauthenticated_faults(options)


def _unauthenticated_faults(options: SessionOptions) -> Iterator[Fault]:
    """Allow a cipher without authentication for signed cookies only."""
    if options.type != COOKIE:
        yield Fault("crypto_type", "cryptography for stored sessions (another cipher does not authenticate the record)")
    elif options.previous_encrypt_keys or options.previous_validate_keys:
        yield Fault("crypto_type", "cryptography where keys are retired (another cipher does not notice a wrong one)")
