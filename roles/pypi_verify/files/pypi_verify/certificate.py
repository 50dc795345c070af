"""The certificate: as nginx shows it to clients, and as it lies on the disk."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .findings import PATIENCE, SITE, Config, Finding

ISSUE = f"{SITE}; with pypi_tls_mode files: give it new ones"
CA_DAYS = 90
DAY = 86_400


def certificate(config: Config) -> Iterator[Finding]:
    """Days left, name, chain, and whether nginx shows the one that is there."""
    if not config.tls:
        return
    folder = Path(config.tls_directory)
    own = ""
    try:
        own = (folder / "certificate.pem").read_text("ascii")
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    except (OSError, ValueError) as error:
        text = f"certificate.pem and key.pem in {folder} are damaged, or not of each other ({error})"
        yield Finding("certificate", text, ISSUE)
    context = ssl.create_default_context(cafile=config.ca or None)
    for authority in context.get_ca_certs() if config.ca else []:
        if (days := _left(authority)) < CA_DAYS:
            yield Finding("certificate", f"the CA ends in {days:.0f} days", ISSUE)
    where = config.address or "127.0.0.1", config.port
    try:
        raw = socket.create_connection(where, PATIENCE)
        with raw, context.wrap_socket(raw, server_hostname=config.hostname) as connection:
            shown, bare = connection.getpeercert() or {}, connection.getpeercert(binary_form=True)
    except ssl.SSLCertVerificationError as error:
        text = f"clients refuse the certificate of {config.hostname}: {error.verify_message}"
        yield Finding("certificate", text, ISSUE)
        return
    except OSError as error:
        text = f"nginx does not answer at {where[0]}, port {where[1]}: {error}"
        yield Finding("certificate", text, f"docker compose --project-directory {config.directory} logs nginx")
        return
    if (days := _left(shown)) < min(config.certificate_days, _life(shown) / 3):
        yield Finding("certificate", f"the certificate of {config.hostname} ends in {days:.0f} days", ISSUE)
    end = "-----END CERTIFICATE-----"
    if end in own and ssl.PEM_cert_to_DER_cert(own[own.index("-----BEGIN") : own.index(end)] + end) != bare:
        yield Finding("certificate", f"nginx shows another certificate than the one in {folder}", _reload(config))


def _reload(config: Config) -> str:
    return f"docker compose --project-directory {config.directory} kill --signal HUP nginx"


def _left(decoded: Any) -> float:
    """Days that a certificate as `getpeercert` returns it is still valid."""
    return (ssl.cert_time_to_seconds(decoded["notAfter"]) - time.time()) / DAY


def _life(decoded: Any) -> float:
    """Days from its beginning to its end."""
    return (ssl.cert_time_to_seconds(decoded["notAfter"]) - ssl.cert_time_to_seconds(decoded["notBefore"])) / DAY
