"""A certificate that signs itself, for servers of the tests' own."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime, timedelta, timezone
from pathlib import Path

from tests import machine


class Certificate:
    """A certificate and its key.

    Args:
        names: the names of the servers that it is for.
    """

    def __init__(self, *names: str) -> None:
        machine.package("cryptography")
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
        now = datetime.now(timezone.utc)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
            .sign(key, hashes.SHA256())
        )
        encoding, formats = serialization.Encoding, (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        self._files = {
            "certificate.pem": certificate.public_bytes(encoding.PEM),
            "key.pem": key.private_bytes(encoding.PEM, *formats),
        }
        public = key.public_key().public_bytes(encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        #: By this a browser can be told to trust it: the hash of its public key, as base64.
        self.pin = base64.b64encode(hashlib.sha256(public).digest()).decode("ascii")

    def write(self, folder: Path) -> None:
        """Write ``certificate.pem`` and ``key.pem`` into a folder."""
        for name, content in self._files.items():
            (folder / name).write_bytes(content)
