"""Files that are either complete or not there, JSON with its own checksum, and the one lock."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from captum_aml._version import __version__
from captum_aml.exceptions import CheckpointError


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file that takes its name when the block ends well, and vanishes when it does not.

    An error or an interruption leaves what was there before. A link stays a link.

    Raises:
        OSError: The file cannot be written.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.part")
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file in a single step.

    Raises:
        OSError: The file cannot be written.
    """
    with atomic_file(path) as stream:
        stream.write(content)


# JSON holds values of any type.
def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Writes JSON in a single step.

    Raises:
        OSError: The file cannot be written.
    """
    write_file(path, json.dumps(content, indent=2).encode("ascii") + b"\n")


def signed_json(content: Mapping[str, Any], *, format: str, version: int) -> bytes:
    """JSON with its format, this package's version and its own checksum, for :func:`read_signed`.

    Args:
        content: What else it holds.
        format: The name of its format.
        version: The version of its format.
    """
    head = {"format": format, "format_version": version, "captum_aml_version": __version__}
    # As it will be read again: JSON makes lists of tuples, and text of the keys of id2label, say.
    signed = json.loads(json.dumps({**head, **content}))
    signed["sha256"] = content_digest(signed)
    return json.dumps(signed, indent=2, ensure_ascii=False).encode() + b"\n"


def read_signed(file: Path, *, format: str, version: int, what: str) -> dict[str, Any]:
    """A file of ours that holds its own checksum, :func:`content_digest`.

    Args:
        file: The file.
        format: What its ``format`` has to be.
        version: What its ``format_version`` has to be.
        what: What the file is of, for an error.

    Raises:
        CheckpointError: It cannot be read, is something else, or does not fit its checksum.
    """
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{file}: damaged or truncated ({error})") from error
    if not isinstance(config, dict) or config.get("format") != format:
        raise CheckpointError(f"{file}: this is not {what} saved by captum_aml")
    if config.get("format_version") != version:
        raise CheckpointError(
            f"{file}: expected format version {version}, "
            f"got {config.get('format_version')!r}; another captum_aml wrote it"
        )
    if config.get("sha256") != content_digest(config):
        raise CheckpointError(
            f"{file}: damaged, or changed by hand (its checksum does not fit its content)"
        )
    return config


def content_digest(config: Mapping[str, Any]) -> str:
    """A checksum over everything in a configuration but the checksum itself."""
    content = {k: v for k, v in config.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextmanager
def locked(file: Path, *, wait: bool = True) -> Iterator[None]:
    """A block that one process at a time is in; the others wait.

    The lock is the operating system's: it goes with the process that has it, however that ends.

    Args:
        file: What is locked, a file of its own. It is made, and removed at the end.
        wait: Whether to wait for who has it. Default: True

    Raises:
        Timeout: Another one has it, and ``wait`` is not set.
        OSError: The file cannot be made, or a link stands in its place.
    """
    with FileLock(file, timeout=-1 if wait else 0):
        try:
            yield
        finally:
            # Before it is given back: who waits for a file that is gone makes a new one. Windows
            # cannot remove it yet, and does by itself.
            with suppress(OSError):
                file.unlink()
