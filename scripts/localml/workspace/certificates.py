"""The throw-away certificate authority of a local workspace: azure-ai-ml talks to nobody without TLS."""

import datetime
import ipaddress
import os
from pathlib import Path

import certifi
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAYS = 30
_MARGIN = datetime.timedelta(days=1)  # of clocks, and to the end


def ensure(folder: Path) -> tuple[Path, Path, Path]:
    """A certificate for 127.0.0.1, its key, and the bundle to trust: all that is trusted anyway, and our authority.

    ``authority.pem`` beside them is our authority alone.
    Made anew where there is none or it ends within a day. The authority's key is thrown away: nothing else is ever
    signed by it.
    """
    certificate, key, bundle = (folder / name for name in ("certificate.pem", "key.pem", "ca_bundle.pem"))
    alone = folder / "authority.pem"
    if not (bundle.exists() and alone.exists() and _lasts(certificate)):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        authority, signed, signed_key = _make()
        alone.write_bytes(authority)
        bundle.write_bytes(Path(certifi.where()).read_bytes() + b"\n" + authority)
        key.unlink(missing_ok=True)
        with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(signed_key)
        certificate.write_bytes(signed)
    return certificate, key, bundle


def _lasts(certificate: Path) -> bool:
    try:
        known = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError):
        return False
    now = datetime.datetime.now(datetime.UTC)
    return known.not_valid_before_utc < now < known.not_valid_after_utc - _MARGIN


def _make() -> tuple[bytes, bytes, bytes]:
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Local Azure ML workspace")])
    public = authority_key.public_key()
    uses = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
    )
    signs = x509.KeyUsage(**uses, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False)
    authority = (
        _builder(issuer, issuer, public)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(signs, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")])
    certificate = (
        _builder(subject, issuer, key.public_key())
        .add_extension(names, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return authority.public_bytes(pem), certificate.public_bytes(pem), plain


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _MARGIN)
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
    )
