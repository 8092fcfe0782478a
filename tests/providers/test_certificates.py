"""Whom a provider's connection believes: the system's authorities, and those of the environment."""

import hashlib
import os
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.x509.name import _ASN1Type

from app.errors import Billing, ProviderUnavailable
from app.guardrails.environment.network import certificate_problems

from .asking import failure_of, post, whole
from .conftest import Connect, IssueCertificate, Serve, Visit

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("clean_network")]


async def model(visit: Visit) -> None:
    await visit.receive()
    await visit.send(whole(b"{}"))


def hashed_name(authority: trustme.CA) -> str:
    """What `openssl rehash` names a certificate: the SHA-1 of its subject, in canonical form."""
    subject = x509.load_pem_x509_certificate(authority.cert_pem.bytes()).subject
    canonical = x509.Name(
        x509.NameAttribute(part.oid, str(part.value).lower(), _ASN1Type.UTF8String)
        for part in subject
    ).public_bytes()
    assert canonical[1] < 128  # the sequence's head is two bytes long
    digest = hashlib.sha1(canonical[2:], usedforsecurity=False).digest()
    return f"{int.from_bytes(digest[:4], 'little'):08x}.0"


async def test_an_unknown_authority_is_not_believed(
    serve: Serve, connect: Connect, certified: IssueCertificate
) -> None:
    """A vendor whose certificate nobody vouches for is sent nothing."""
    async with (
        serve(model, certified("127.0.0.1")) as server,
        connect(f"https://127.0.0.1:{server.port}") as transport,
    ):
        error = await failure_of(post, transport)
    assert isinstance(error, ProviderUnavailable)
    assert error.billing is Billing.NOTHING
    assert "CERTIFICATE_VERIFY_FAILED" in str(error)
    assert server.requests == []


async def test_a_file_of_authorities_is_believed(
    serve: Serve, connect: Connect, certified: IssueCertificate, trusted: None
) -> None:
    """`SSL_CERT_FILE` vouches for vendors, or for what stands between them and us."""
    async with (
        serve(model, certified("127.0.0.1")) as server,
        connect(f"https://127.0.0.1:{server.port}") as transport,
    ):
        assert (await post(transport)).status == 200


async def test_a_folder_of_authorities_is_believed(
    serve: Serve,
    connect: Connect,
    certified: IssueCertificate,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """`SSL_CERT_DIR` does so too, as OpenSSL keeps folders."""
    authority.cert_pem.write_to_path(tmp_path / hashed_name(authority))
    monkeypatch.setenv("SSL_CERT_DIR", f"/nowhere{os.pathsep}{tmp_path}")
    assert list(certificate_problems()) == []
    async with (
        serve(model, certified("127.0.0.1")) as server,
        connect(f"https://127.0.0.1:{server.port}") as transport,
    ):
        assert (await post(transport)).status == 200


async def test_a_certificate_is_good_for_its_names_only(
    serve: Serve, connect: Connect, certified: IssueCertificate, trusted: None
) -> None:
    """A trusted authority's certificate for somebody else is no better than none."""
    async with (
        serve(model, certified("other.invalid")) as server,
        connect(f"https://127.0.0.1:{server.port}") as transport,
    ):
        error = await failure_of(post, transport)
    assert error.billing is Billing.NOTHING
    assert server.requests == []


def test_a_file_that_vouches_for_nobody_is_named(
    monkeypatch: pytest.MonkeyPatch, authority: trustme.CA, tmp_path: Path
) -> None:
    """A path that leads nowhere, to a folder, or to a file without certificates is a problem of
    its variable before it is one of any call."""
    (tmp_path / "other.txt").write_text("no certificate")
    for wrong in ("", "/nowhere/ca.pem", str(tmp_path), str(tmp_path / "other.txt")):
        monkeypatch.setenv("SSL_CERT_FILE", wrong)
        assert [variable for variable, _ in certificate_problems()] == ["SSL_CERT_FILE"]
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert list(certificate_problems()) == []


def test_a_folder_that_vouches_for_nobody_is_named(
    monkeypatch: pytest.MonkeyPatch, authority: trustme.CA, tmp_path: Path
) -> None:
    """OpenSSL passes over a missing folder, and over any name that is no hash, in silence; beside a
    file of authorities a folder may well be empty."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for wrong in ("", "/nowhere", str(tmp_path / "ca.pem"), str(tmp_path)):
        monkeypatch.setenv("SSL_CERT_DIR", wrong)
        assert [variable for variable, _ in certificate_problems()] == ["SSL_CERT_DIR"]
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert list(certificate_problems()) == []
