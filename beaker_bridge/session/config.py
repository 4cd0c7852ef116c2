"""The objects that the sessions of one configuration share."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from beaker_bridge.cookies import CookieWriter, Signer
from beaker_bridge.logs import LogLimiter, log_once
from beaker_bridge.options.table import SESSION_TABLE, SessionOptions
from beaker_bridge.options.types import COOKIE
from beaker_bridge.record.cipher import Cipher
from beaker_bridge.record.codec import RecordCodec
from beaker_bridge.record.envelope import BareEnvelope
from beaker_bridge.record.serializers import JSONSerializer, PickleSerializer, Serializer
from beaker_bridge.session.listeners import Listeners
from beaker_bridge.stores import open_store

log = logging.getLogger(__name__)

#: A secret of fewer bytes is warned about.
SECRET_SIZE = 32
#: Plain bytes that are encrypted into a cookie are padded to a multiple of this.
STEP = 128


class SessionConfig:
    """The objects that one configuration's sessions share; immutable.

    Args:
        options: the option table.
    """

    def __init__(self, options: SessionOptions) -> None:
        self.options = options
        _warn_of_short_secrets(options)
        if options.use_cookies and (options.key, options.cookie_path) == (SESSION_TABLE["key"].default, "/"):
            warning = default_key_warning(options.label("key", "type"), is_set="key" in options.given)
            log_once(log, logging.WARNING, warning)
        self.clock: Callable[[], float] = options.clock or time.time
        self.store = None if options.type == COOKIE else open_store(options)
        #: The applications whose subscribers get the store's events.
        self.listeners = Listeners()
        if self.store is not None:
            self.store.on_event = self.listeners.report_breaker
        self.codec = _codec(options, BareEnvelope if self.store is None else self.store.envelope)
        self.signer = Signer(_keys(options), (options.sign_algorithm, *options.previous_sign_algorithms))
        self.cookies = CookieWriter(options, self.signer)
        #: Seconds after which an access time is renewed.
        self.touch_interval = options.touch_interval
        #: Limits the log lines that a visitor's cookie can cause.
        self.log_lines = LogLimiter()
        #: The interval of the clock in which this process does not purge the store; an interval, since a clock may be
        #: set back.
        self.purge_pause = (0.0, 0.0) if options.purge_every and self.store else (-math.inf, math.inf)
        #: Taken by the thread that warns of sessions in the memory of several processes, and never released.
        self.may_warn_of_processes = threading.Lock()


def default_key_warning(label: str, *, is_set: bool) -> str:
    """Return the warning for a cookie that has Beaker's default name and path, as other sites of the host may have.

    Args:
        label: the option that names the cookie, as the user writes it.
        is_set: whether it is set, as Beaker's own middleware always does.
    """
    what = "Beaker's default" if is_set else "not set"
    return (
        f"{label} is {what}: if another application on this host has a cookie of the same name and path, the two log"
        f" each other's users out; set {label} to a name of its own"
    )


def _warn_of_short_secrets(options: SessionOptions) -> None:
    # Leave out the secret for cookie sessions, which the validate_key signs.
    names = ("validate_key", "encrypt_key") if options.type == COOKIE else ("secret", "validate_key", "encrypt_key")
    for name in names:
        secret = getattr(options, name)
        if secret and len(secret.encode("utf-8")) < SECRET_SIZE:
            message = f"{options.label(name)} is shorter than {SECRET_SIZE} bytes: it can be guessed"
            log_once(log, logging.WARNING, message, hash(secret))


def _keys(options: SessionOptions) -> list[str]:
    """Return the keys that sign our cookie, the current one first."""
    if options.type == COOKIE:
        return [str(options.validate_key), *options.previous_validate_keys]
    return [options.secret, *options.previous_secrets] if options.secret else []


def _codec(options: SessionOptions, envelope: Any) -> RecordCodec:
    # Read no pickles from cookies: a leaked key would let a browser run code here.
    legacy = None if options.type == COOKIE else options.legacy_serializer
    keys = _keys(options) or [""]
    # Pad instead of compressing: the length of a compressed cookie shows where its user's input repeats a hidden value.
    step = STEP if options.type == COOKIE and options.encrypt_key else 0
    return RecordCodec(
        _serializer(options.data_serializer, keys, step),
        legacy=_serializer(legacy, keys) if legacy else None,
        cipher=_cipher(options),
        envelope=envelope,
    )


def _serializer(choice: Any, keys: Sequence[str], step: int = 0) -> Serializer:
    if choice == "json":
        return JSONSerializer(keys, step=step)
    if choice == "pickle":
        return PickleSerializer(step=step)
    serializer: Serializer = choice
    return serializer


def _cipher(options: SessionOptions) -> Cipher | None:
    if not options.encrypt_key:
        return None
    pairs = [
        (encrypt_key, str(validate_key))
        for validate_key in (options.validate_key, *options.previous_validate_keys)
        for encrypt_key in (options.encrypt_key, *options.previous_encrypt_keys)
    ]
    return Cipher(pairs, crypto_type=options.crypto_type, nonce_bits=options.encrypt_nonce_bits)
