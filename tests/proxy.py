"""A proxy in front of a server: adds TLS, changes the traffic, or temporarily blocks it."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def make_certificate(folder: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 and its key in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    path = folder / "certificate.pem"
    path.write_bytes(pem)
    return path


@contextlib.contextmanager
def proxy(
    target: int,
    *,
    certificate: Path | None = None,
    change: tuple[bytes, bytes] = (b"", b""),
    closed: threading.Event | None = None,
) -> Iterator[int]:
    """Start a proxy to `target` on loopback and return its port.

    Args:
        target: the server's port.
        certificate: use TLS with this certificate and key.
        change: bytes to replace in responses, and their replacement of the same length.
        closed: while this event is set, all connections are closed.
    """
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def pump(source: socket.socket, sink: socket.socket, back: bool) -> None:
            with contextlib.suppress(OSError, ValueError):
                while (data := source.recv(65536)) and not (closed and closed.is_set()):
                    sink.sendall(data.replace(*change) if back and change[0] else data)
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_RDWR)

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                    client = context.wrap_socket(client, server_side=True) if context else client
                except ssl.SSLError:
                    continue
                except OSError:
                    return
                if closed and closed.is_set():
                    client.close()
                    continue
                upstream = socket.create_connection(("127.0.0.1", target))
                for arguments in ((client, upstream, False), (upstream, client, True)):
                    threading.Thread(target=pump, args=arguments, daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])
