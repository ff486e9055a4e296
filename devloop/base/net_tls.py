"""TLS contexts from PEM texts, and what TLS raises. Knows nothing of where they come from."""

from __future__ import annotations

import os
import ssl
import tempfile
from pathlib import Path

TlsError = ssl.SSLError
CertificateError = ssl.SSLCertVerificationError
WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""What a socket that never blocks raises, plain or TLS, when there is nothing to do now."""


def tls_beside_system(ca: str, cert: str, key: str) -> ssl.SSLContext | None:
    """A client context that trusts `ca` beside the system's authorities; None where there is
    nothing to add, or where a text is no certificate."""
    if not (ca or cert):
        return None
    context = ssl.create_default_context()
    try:
        if ca:
            context.load_verify_locations(cadata=ca)
        if cert:
            _load_pair(context, cert, key)
    except ssl.SSLError:
        return None
    return context


def tls_context(*, ca: str, cert: str, key: str, insecure: bool) -> ssl.SSLContext:
    """A client context from PEM texts; raises ssl.SSLError for texts that are no certificates."""
    if insecure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context = ssl.create_default_context(cadata=ca or None)
        # Clusters' own authorities often lack extensions that strict checking (Python 3.13's
        # default) asks for and Go, hence kubectl, does not.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if cert:
        _load_pair(context, cert, key)
    return context


def _load_pair(context: ssl.SSLContext, cert: str, key: str) -> None:
    """OpenSSL's Python face takes files only: the key lies in one for a moment, for us alone."""
    handle, name = tempfile.mkstemp(prefix="devloop-")
    try:
        with os.fdopen(handle, "w", encoding="ascii", errors="replace") as file:
            file.write(f"{cert}\n{key}\n")
        context.load_cert_chain(name)
    finally:
        Path(name).unlink(missing_ok=True)
