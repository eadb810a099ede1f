"""Keys that sign and keys that are trusted: Ed25519 (RFC 8032), in PEM.

Needs the extra `signing`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

from pydantic import StringConstraints

from kovar.errors import MissingExtraError, SettingsError, UntrustedVersionError, UserError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

PUBLIC_SUFFIX: Final = ".pub"

Ed25519Signature = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]
"""A signature in hexadecimal."""


class Signed(Protocol):
    """What a key has signed, and the signature."""

    @property
    def key_id(self) -> str:
        """SHA-256 of the raw public key."""
        ...

    @property
    def signature(self) -> str:
        """The signature, in hexadecimal."""
        ...

    @property
    def message(self) -> bytes:
        """The bytes that were signed."""
        ...


class Signer:
    """A private key.

    Args:
        key: the key.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.key_id = key_id_of(key.public_key())

    @classmethod
    def read(cls, path: Path) -> Signer:
        """Read a private key in PEM.

        Raises:
            SettingsError: missing, readable by others, or not an Ed25519 key without password.
            MissingExtraError: `cryptography` is not installed.
        """
        serialization, ed25519 = _cryptography()
        try:
            mode = path.stat().st_mode
            content = path.read_bytes()
        except OSError as problem:
            raise _unreadable_key("signing_key", path, problem.strerror or str(problem)) from None
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise SettingsError(
                f"the private key can be used by others (mode {stat.S_IMODE(mode):04o})",
                field="signing_key",
                got=str(path),
                hint=f"chmod 600 {path}",
            )
        try:
            key = serialization.load_pem_private_key(content, password=None)
        except (ValueError, TypeError) as problem:
            raise _unreadable_key("signing_key", path, str(problem)) from None
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise _unreadable_key("signing_key", path, "not an Ed25519 key")
        return cls(key)

    def sign(self, message: bytes) -> str:
        """Return the signature of some bytes, in hexadecimal."""
        return self._key.sign(message).hex()


class Trust:
    """The public keys whose signatures are accepted.

    Args:
        keys: key id → key.
    """

    def __init__(self, keys: Mapping[str, Ed25519PublicKey]) -> None:
        self.keys = keys

    @classmethod
    def read(cls, paths: Iterable[Path]) -> Trust:
        """Read public keys in PEM.

        Args:
            paths: files, and folders of `*.pub` files.

        Raises:
            SettingsError: a file is missing or not an Ed25519 public key, or a folder has none.
            MissingExtraError: `cryptography` is not installed.
        """
        serialization, ed25519 = _cryptography()
        keys: dict[str, Ed25519PublicKey] = {}
        for path in _key_files(paths):
            try:
                key = serialization.load_pem_public_key(path.read_bytes())
            except (OSError, ValueError) as problem:
                raise _unreadable_key("trusted_keys", path, str(problem)) from None
            if not isinstance(key, ed25519.Ed25519PublicKey):
                raise _unreadable_key("trusted_keys", path, "not an Ed25519 key")
            keys[key_id_of(key)] = key
        return cls(keys)

    def accepts(self, signed: Signed) -> bool:
        """Whether a trusted key made this signature."""
        from cryptography.exceptions import InvalidSignature

        key = self.keys.get(signed.key_id)
        if key is None:
            return False
        try:
            key.verify(bytes.fromhex(signed.signature), signed.message)
        except InvalidSignature:
            return False
        return True

    def check(self, found: Collection[Signed], *, name: str, hint: str) -> None:
        """Refuse what no trusted key signed.

        Args:
            found: the signatures that there are.
            name: what to call it in the message.
            hint: what to do about it.

        Raises:
            UntrustedVersionError: unsigned, signed by others only, or wrongly signed.
        """
        if any(self.accepts(each) for each in found):
            return
        wrong = [each.key_id[:16] for each in found if each.key_id in self.keys]
        what = "is not signed"
        if wrong:
            what = f"is wrongly signed: the signature of the trusted key {', '.join(wrong)} fails"
        elif found:
            what = "is signed only by keys that are not trusted: "
            what += ", ".join(each.key_id[:16] for each in found)
        raise UntrustedVersionError(f"{name} {what}", hint=hint)


def generate_keys(path: Path) -> Path:
    """Write a new private key (mode 0600) and beside it the public one; return the latter's path.

    Raises:
        UserError: one of the files exists or cannot be written.
        MissingExtraError: `cryptography` is not installed.
    """
    serialization, ed25519 = _cryptography()
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    public_path = path.with_name(path.name + PUBLIC_SUFFIX)
    if public_path.exists():
        raise UserError("the file exists already", file=public_path, hint="choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for target, content, mode in ((path, private, 0o600), (public_path, public, 0o644)):
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
    except FileExistsError:
        raise UserError("the file exists already", file=path, hint="choose another name") from None
    except OSError as problem:
        raise UserError(f"cannot write the key: {problem.strerror}", file=path) from None
    return public_path


def key_id_of(key: Ed25519PublicKey) -> str:
    """Return the SHA-256 of a public key: its name in signatures."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def _key_files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        inside = sorted(path.glob(f"*{PUBLIC_SUFFIX}"))
        if not inside:
            raise _unreadable_key("trusted_keys", path, f"no *{PUBLIC_SUFFIX} file in this folder")
        yield from inside


def _unreadable_key(field: str, path: Path, why: str) -> SettingsError:
    return SettingsError(
        f"the key cannot be used: {why}",
        field=field,
        got=str(path),
        allowed="an Ed25519 key in PEM",
        hint="`kovar keys generate` makes a pair",
    )


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise MissingExtraError.of("signing", needed_for="signing versions") from None
    return serialization, ed25519
