"""The folder of a run: explanations go to disk as they come, and a killed run loses none of them.

A folder holds ``run.json``, which says what was run on what, and for each method and seed a file
``explanations/<method>-<seed>.jsonl``: a line about the method, then a line for each text in the
order of the run's plan. What ``MethodFile.append`` has returned from stays, whatever happens to
the process, the disk's space or the machine's power. A batch that was cut short is removed when
the file is opened again, so that a run goes on where it stopped.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from captum_aml._utils.files import write_json
from captum_aml._utils.rows import shown
from captum_aml._utils.run_folder import LOCK, RunFolder, check_same
from captum_aml._version import __version__
from captum_aml.exceptions import InvalidInputError

if TYPE_CHECKING:
    from typing_extensions import Self

#: What JSON can hold. Tuples are read back as lists.
JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

#: Files that a run's report consists of.
REPORT_FILES = ("report.html", "report.md", "results.json", "scores.parquet")

_FORMAT = 1
_IDENTITY = "run.json"
_EXPLANATIONS = "explanations"
_VALUES = "values"
#: The fields that tell our files from others; their value is the format's version.
_RUN_FIELD = "captum_aml_run"
_METHOD_FIELD = "captum_aml_explanations"
_LONGEST_NAME = 100


class BenchmarkFolder(RunFolder):
    """A folder that one process at a time writes one run's results to.

    Use ``BenchmarkFolder.open``, and ``close`` at the end or a ``with`` block.

    Attributes:
        path: The folder.
        identity: What ``run.json`` says, with the format's and the package's version.
    """

    def __init__(self, path: Path, identity: Mapping[str, JSON]) -> None:
        super().__init__(path)
        self.identity = identity

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        identity: Mapping[str, JSON],
        *,
        overwrite: bool = False,
    ) -> Self:
        """Creates the folder of a run, or opens it to go on.

        Args:
            path: The folder. It is made if it does not exist.
            identity: Everything that results have to agree in to stand in one folder: model,
                data, target and the like. The package's version is added.
            overwrite: Whether to remove what an earlier run wrote there, be it the same run or
                another. Files that this package did not write always stay. Default: False

        Raises:
            InvalidInputError: The folder holds another run's results, or files but no run, and
                ``overwrite`` is not set; another process is writing there; or ``identity`` holds
                what JSON cannot.
            OSError: The folder cannot be written.
        """
        folder = Path(path)
        fields = json.loads(
            _to_json({_RUN_FIELD: _FORMAT, "package_version": __version__, **identity}, "identity")
        )
        cls.check_path(folder)
        # Before anything is written to it, and again when nobody else can write.
        _identity_of(folder, may_be_foreign=overwrite)
        run = cls(folder, fields)
        try:
            there = _identity_of(folder, may_be_foreign=overwrite)
            if there is not None and not overwrite:
                check_same(there, fields, f"out: {os.fspath(path)!r} holds another run")
            _remove_fragments(folder)
            if overwrite:
                _remove_results(folder, with_report=there is not None)
            if there is None or overwrite:
                write_json(folder / _IDENTITY, fields)
            (folder / _EXPLANATIONS).mkdir(exist_ok=True)
            _sync_folder(folder)
            # Which may not be ours to open.
            with suppress(OSError):
                _sync_folder(folder.parent)
        except BaseException:
            run.close()
            raise
        return run

    def method_file(
        self,
        method: str,
        seed: int,
        settings: Mapping[str, JSON],
        plan_digest: str,
        batch_sizes: Sequence[int],
    ) -> MethodFile:
        """The explanations of one method with one seed, as far as there are any.

        Args:
            method: The method's name, whatever its characters.
            seed: The seed, 0 or more.
            settings: Everything else that decides the scores.
            plan_digest: A digest of the order of the texts.
            batch_sizes: The numbers of texts that are explained together, in order.

        Raises:
            InvalidInputError: The file there is of other settings or another plan; or it is
                damaged elsewhere than at its end, and the message names the line.
            OSError: The file cannot be read or written.
        """
        if not method:
            raise InvalidInputError("method: expected a name, got an empty one")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise InvalidInputError(f"seed: expected 0 or more, got {seed!r}")
        if not batch_sizes or min(batch_sizes) < 1:
            raise InvalidInputError(
                f"batch_sizes: expected numbers of texts, 1 or more, got {shown(batch_sizes)}"
            )
        fields: dict[str, JSON] = {"method": method, "seed": seed}
        name = f"{method}-{seed}"
        return self._file(_EXPLANATIONS, name, fields, settings, plan_digest, batch_sizes)

    def values_file(
        self,
        name: str,
        settings: Mapping[str, JSON],
        plan_digest: str,
        batch_sizes: Sequence[int],
    ) -> MethodFile:
        """Values computed from explanations, under a name, as far as there are any.

        Args:
            name: What is computed, and of what.
            settings: Everything that decides the values.
            plan_digest: As for ``method_file``.
            batch_sizes: The numbers of records that are written together, in order.

        Raises:
            InvalidInputError: As from ``method_file``.
            OSError: The file cannot be read or written.
        """
        return self._file(_VALUES, name, {"values": name}, settings, plan_digest, batch_sizes)

    def _file(
        self,
        folder: str,
        name: str,
        fields: Mapping[str, JSON],
        settings: Mapping[str, JSON],
        plan_digest: str,
        batch_sizes: Sequence[int],
    ) -> MethodFile:
        path = self.path / folder
        path.mkdir(exist_ok=True)
        header: dict[str, JSON] = {
            _METHOD_FIELD: _FORMAT,
            **fields,
            "plan": plan_digest,
            "batches": list(batch_sizes),
            "settings": settings,
        }
        return MethodFile(path / f"{_file_name(name)}.jsonl", header, batch_sizes)


class MethodFile:
    """The explanations of one method with one seed: a file that grows by whole batches.

    Iterating reads the complete records from disk, one at a time. Get it from
    ``BenchmarkFolder.method_file``.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, header: Mapping[str, JSON], batch_sizes: Sequence[int]) -> None:
        self.path = path
        self._ends = list(accumulate(batch_sizes))
        self._batches = 0
        self._size = 0
        line = _to_json(header, "settings")
        if not self._open(json.loads(line)):
            self._write(line)
            _sync_folder(path.parent)

    @property
    def done(self) -> int:
        """The number of complete records; always that of some whole batches."""
        return self._ends[self._batches - 1] if self._batches else 0

    @property
    def complete(self) -> bool:
        """Whether there is a record for every text."""
        return self._batches == len(self._ends)

    def digest(self) -> str:
        """SHA-256 of what the file says, from its first line to the last complete record."""
        digest = hashlib.sha256()
        with self.path.open("rb") as stream:
            for line in islice(stream, self.done + 1):
                digest.update(line)
        return digest.hexdigest()

    def append(self, records: Sequence[Mapping[str, JSON]]) -> None:
        """Writes the records of the next batch; they are safe once this returns.

        Floats are read back exactly.

        Raises:
            InvalidInputError: There are more or fewer records than the batch has texts, or one
                holds NaN, an infinite number, or what JSON cannot hold.
            OSError: The disk is full or broken. What was done before stays.
        """
        expected = 0 if self.complete else self._ends[self._batches] - self.done
        if len(records) != expected or not records:
            raise InvalidInputError(
                f"records: expected {expected}, as many as batch {self._batches + 1} has texts, "
                f"got {len(records)}"
            )
        self._write(
            b"".join(
                _to_json(record, f"record {number}")
                for number, record in enumerate(records, start=self.done + 1)
            )
        )
        self._batches += 1

    # Whoever wrote the records knows what they hold.
    def __iter__(self) -> Iterator[dict[str, Any]]:
        with self.path.open("rb") as stream:
            stream.readline()
            for line in islice(stream, self.done):
                yield json.loads(line)

    def _open(self, header: Mapping[str, Any]) -> bool:
        """Takes stock of the file; False if there is none with a whole first line."""
        try:
            stream = self.path.open("rb")
        except FileNotFoundError:
            return False
        with stream:
            first = stream.readline()
            if not first.endswith(b"\n"):
                return False
            there = _parsed(first)
            if there is None or _METHOD_FIELD not in there:
                self._damaged(1)
            check_same(there, header, f"out: {os.fspath(self.path)!r} was made otherwise")
            self._size = position = len(first)
            for number, line in enumerate(stream, start=1):
                if not line.endswith(b"\n") or _parsed(line) is None:
                    if stream.read(1):
                        self._damaged(number + 1)
                    break
                if self.complete:
                    self._damaged(number + 1)
                position += len(line)
                if number == self._ends[self._batches]:
                    self._batches += 1
                    self._size = position
        return True

    def _damaged(self, line: int) -> NoReturn:
        raise InvalidInputError(
            f"{os.fspath(self.path)}, line {line}: expected a record of the run, got something "
            "else; remove the file to explain its texts again"
        )

    def _write(self, data: bytes) -> None:
        """Puts data behind what is done, or leaves that alone."""
        with self.path.open("r+b" if self.path.exists() else "xb", buffering=0) as stream:
            try:
                # A batch that was cut short, by us or by an earlier process, ends here.
                stream.truncate(self._size)
                stream.seek(self._size)
                rest = memoryview(data)
                while rest:
                    rest = rest[stream.write(rest) :]
                os.fsync(stream.fileno())
            except OSError as error:
                with suppress(OSError):
                    stream.truncate(self._size)
                raise OSError(
                    error.errno or errno.EIO,
                    f"{error.strerror or error}; the {self.done} explanations written before "
                    "are kept",
                    os.fspath(self.path),
                ) from error
        self._size += len(data)


def _identity_of(folder: Path, *, may_be_foreign: bool) -> dict[str, Any] | None:
    """The content of ``run.json``; None where there is none.

    Raises:
        InvalidInputError: The folder holds somebody else's ``run.json``, or other files and none.
    """
    try:
        content = (folder / _IDENTITY).read_bytes()
    except FileNotFoundError:
        ours = re.compile(rf"{re.escape(LOCK)}|{_fragment(_IDENTITY)}")
        foreign = folder.is_dir() and any(not ours.fullmatch(p.name) for p in folder.iterdir())
        if foreign and not may_be_foreign:
            raise InvalidInputError(
                f"out: expected a new folder, an empty one or one of a run, got "
                f"{os.fspath(folder)!r}, which holds other files; choose another folder, or write "
                "among them with --overwrite, which leaves them alone"
            ) from None
        return None
    fields = _parsed(content)
    if fields is None or _RUN_FIELD not in fields:
        raise InvalidInputError(
            f"out: {os.fspath(folder)!r} holds a {_IDENTITY} that is not of a benchmark; choose "
            "another folder"
        )
    return fields


def _fragment(name: str) -> str:
    """A pattern of what ``atomic_file`` leaves behind when its process is killed."""
    return rf"\.{re.escape(name)}\.[0-9a-f]{{12}}\.part"


def _remove_fragments(folder: Path) -> None:
    pattern = re.compile("|".join(map(_fragment, (_IDENTITY, *REPORT_FILES))))
    for file in folder.iterdir():
        if pattern.fullmatch(file.name):
            file.unlink()


def _remove_results(folder: Path, *, with_report: bool) -> None:
    """Removes what this package wrote but ``run.json``, which is replaced."""
    start = json.dumps({_METHOD_FIELD: _FORMAT}).removesuffix("}").encode("ascii")
    for file in (*(folder / _EXPLANATIONS).glob("*.jsonl"), *(folder / _VALUES).glob("*.jsonl")):
        with file.open("rb") as stream:
            ours = start.startswith(stream.read(len(start)))
        if ours:
            file.unlink()
    for name in REPORT_FILES if with_report else ():
        (folder / name).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Makes names in a folder last through a power failure, where the system can do that."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _file_name(method: str) -> str:
    """A name of characters that every file system can hold and tell apart, one for one."""
    name = re.sub(
        r"^\.|[^a-z0-9_.-]",
        lambda match: "".join(f"%{b:02X}" for b in match[0].encode("utf-8", "surrogatepass")),
        method,
    )
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}~{hashlib.sha256(name.encode('ascii')).hexdigest()[:16]}"


def _to_json(value: Mapping[str, JSON], name: str) -> bytes:
    """A value as a line.

    Raises:
        InvalidInputError: JSON cannot hold it.
    """
    try:
        return json.dumps(value, allow_nan=False, default=_plain).encode("ascii") + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(
            f"{name}: expected finite numbers, strings, lists and mappings, got others ({error})"
        ) from None


def _plain(value: object) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__}")


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The object on a line; None where it is something else."""
    try:
        value = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
