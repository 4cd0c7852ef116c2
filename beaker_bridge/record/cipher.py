"""Beaker's encryption of a record: AES-GCM, with a nonce that is also part of the derived key."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence

from beaker.crypto import generateCryptoKeys, get_nonce_size

from beaker_bridge.options.types import crypto_module
from beaker_bridge.record.fields import UnreadableError


class Cipher:
    """Encrypts to Beaker's text: a nonce in base64, then the ciphertext in base64.

    Args:
        pairs: ``(encrypt_key, validate_key)``, the current pair first, then the retired ones.
        crypto_type: the name of Beaker's crypto module, or ``default``.
        nonce_bits: the size of the nonce.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]], *, crypto_type: str, nonce_bits: int) -> None:
        self._pairs = tuple(pairs)
        self._module = crypto_module(crypto_type)
        self._nonce_size, self._nonce_length = get_nonce_size(nonce_bits)

    def encrypt(self, plain: bytes) -> bytes:
        """Return the text of plain bytes, under the current keys and a new nonce."""
        nonce = base64.b64encode(os.urandom(self._nonce_size))[: self._nonce_length].decode("ascii")
        ciphertext = self._module.aesEncrypt(plain, self._key(self._pairs[0], nonce))
        return nonce.encode("ascii") + base64.b64encode(ciphertext)

    def decrypt(self, text: bytes) -> tuple[bytes, bool]:
        """Return the plain bytes, and whether a retired key was needed.

        Raises:
            ValueError: the text is malformed, or no key decrypts it.
        """
        nonce = text[: self._nonce_length].decode("ascii")
        ciphertext = base64.b64decode(text[self._nonce_length :], validate=True)
        for pair in self._pairs:
            try:
                plain = self._module.aesDecrypt(ciphertext, self._key(pair, nonce))
            except Exception:  # noqa: BLE001, S112 -- each cipher library has its own error for a wrong key
                continue
            return plain, pair is not self._pairs[0]
        raise UnreadableError("no key opens it")

    def _key(self, pair: tuple[str, str], nonce: str) -> bytes:
        encrypt_key, validate_key = pair
        return bytes(generateCryptoKeys(encrypt_key, validate_key + nonce, 1, self._module.getKeyLength()))
