"""Run folders: nothing reported as done is lost, and no two runs are mixed."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import captum_aml
from captum_aml.benchmark.store import BenchmarkFolder, MethodFile
from captum_aml.exceptions import InvalidInputError

IDENTITY = {"model": {"name": "m", "fingerprint": "f" * 64}, "data": "d", "n_texts": 6}
SETTINGS = {"n_steps": 50, "signed": True}
BATCHES = (2, 3, 1)
RECORDS = [{"index": i, "scores": [0.1 * i, -1 / 3], "text": f"é 🎬 {i}"} for i in range(6)]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[BenchmarkFolder]:
    with BenchmarkFolder.open(tmp_path / "run", IDENTITY) as run:
        yield run


def method_file(
    run: BenchmarkFolder, method: str = "aml", seed: int = 0, **changed: Any
) -> MethodFile:
    options = {"settings": SETTINGS, "plan_digest": "p", "batch_sizes": BATCHES, **changed}
    return run.method_file(method, seed, **options)


def filled(run: BenchmarkFolder, batches: int = 3) -> MethodFile:
    """A file with the first batches."""
    file = method_file(run)
    for size in BATCHES[:batches]:
        file.append(RECORDS[file.done : file.done + size])
    return file


class TestRunFolder:
    def test_says_what_was_run(self, run: BenchmarkFolder) -> None:
        fields = json.loads((run.path / "run.json").read_text("utf-8"))
        assert fields == run.identity
        assert {name: fields[name] for name in IDENTITY} == IDENTITY
        assert "package_version" in fields

    def test_same_run_goes_on(self, tmp_path: Path) -> None:
        with BenchmarkFolder.open(tmp_path, IDENTITY) as run:
            filled(run, 2)
        with BenchmarkFolder.open(tmp_path, MappingProxyType({**IDENTITY})) as run:
            file = method_file(run)
            assert file.done == 5
            file.append(RECORDS[5:])
            assert list(file) == RECORDS

    def test_another_run_is_refused(self, tmp_path: Path) -> None:
        with BenchmarkFolder.open(tmp_path, IDENTITY) as run:
            filled(run)
        other = {"model": {"name": "m", "fingerprint": "g"}, "data": "d", "target": 1}
        with pytest.raises(InvalidInputError, match="--overwrite") as error:
            BenchmarkFolder.open(tmp_path, other)
        assert "model.fingerprint is 'fff" in str(error.value)
        assert "n_texts is 6 there and not here" in str(error.value)
        assert "target is not there and 1 here" in str(error.value)
        assert "model.name" not in str(error.value)
        assert "data" not in str(error.value)
        with BenchmarkFolder.open(tmp_path, IDENTITY) as run:
            assert method_file(run).complete

    def test_refused_folder_can_be_opened_after_all(self, tmp_path: Path) -> None:
        BenchmarkFolder.open(tmp_path, {"a": 1}).close()
        for _ in range(2):
            with pytest.raises(InvalidInputError, match="another run"):
                BenchmarkFolder.open(tmp_path, {"a": 2})
        BenchmarkFolder.open(tmp_path, {"a": 1}).close()

    def test_folder_with_other_files_is_refused_and_left_as_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "report.html").write_text("mine")
        with pytest.raises(InvalidInputError, match=r"holds other files.*--overwrite"):
            BenchmarkFolder.open(tmp_path, IDENTITY)
        assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
        BenchmarkFolder.open(tmp_path, IDENTITY, overwrite=True).close()
        assert (tmp_path / "report.html").read_text() == "mine"

    def test_overwriting_removes_only_our_files(self, tmp_path: Path) -> None:
        with BenchmarkFolder.open(tmp_path, IDENTITY) as run:
            ours = filled(run).path
        (ours.parent / "b-3.jsonl").write_bytes(b"")  # killed before its first line
        for name in ("report.html", "report.md", "results.json", "scores.parquet"):
            (tmp_path / name).write_text("report")
        (tmp_path / ".scores.parquet.0123456789ab.part").write_text("killed")
        theirs = [
            tmp_path / "notes.txt",
            tmp_path / "report.pdf",
            tmp_path / "sub" / "run.json",
            ours.parent / "mine-1.jsonl",
            ours.parent / "mine.txt",
        ]
        for path in theirs:
            path.parent.mkdir(exist_ok=True)
            path.write_text('{"text": "mine"}\n')
        with BenchmarkFolder.open(tmp_path, {"other": 1}, overwrite=True) as run:
            assert run.identity["other"] == 1
        left = {p for p in tmp_path.rglob("*") if p.is_file()}
        assert left == {*theirs, tmp_path / "run.json"}
        assert "model" not in json.loads((tmp_path / "run.json").read_text())

    def test_overwriting_the_same_run_starts_anew(self, tmp_path: Path) -> None:
        with BenchmarkFolder.open(tmp_path, IDENTITY) as run:
            filled(run)
        with BenchmarkFolder.open(tmp_path, IDENTITY, overwrite=True) as run:
            assert method_file(run).done == 0

    @pytest.mark.parametrize("content", ['{"scripts": {}}', "not JSON", "", "[]"])
    def test_somebody_elses_run_json_is_never_touched(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "run.json").write_text(content)
        for overwrite in (False, True):
            with pytest.raises(InvalidInputError, match="not of a benchmark"):
                BenchmarkFolder.open(tmp_path, IDENTITY, overwrite=overwrite)
        assert (tmp_path / "run.json").read_text() == content

    def test_killed_before_anything_was_written(self, tmp_path: Path) -> None:
        (tmp_path / ".lock").write_text("1\n")
        (tmp_path / ".run.json.0123456789ab.part").write_text("{")
        with BenchmarkFolder.open(tmp_path, IDENTITY):
            names = {p.name for p in tmp_path.iterdir()}
        assert names == {".lock", "run.json", "explanations"}

    def test_file_in_its_place(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("")
        with pytest.raises(InvalidInputError, match="out: expected a folder, got the file"):
            BenchmarkFolder.open(tmp_path / "a", IDENTITY, overwrite=True)

    def test_identity_that_json_cannot_hold(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInputError, match="identity: expected finite numbers"):
            BenchmarkFolder.open(tmp_path / "a", {"x": math.nan})
        assert not (tmp_path / "a").exists()

    @pytest.mark.skipif(sys.platform == "win32", reason="no locks")
    def test_one_writer_at_a_time(self, tmp_path: Path) -> None:
        script = f"""
            from captum_aml.benchmark.store import BenchmarkFolder
            run = BenchmarkFolder.open({str(tmp_path)!r}, {{}})
            print("open", flush=True)
            input()
        """
        with child(script) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"open\n"
            for overwrite in (False, True):
                with pytest.raises(InvalidInputError, match="another process writes"):
                    BenchmarkFolder.open(tmp_path, {}, overwrite=overwrite)
            process.kill()
            process.wait()
            BenchmarkFolder.open(tmp_path, {}).close()

    @pytest.mark.skipif(sys.platform == "win32", reason="no locks")
    def test_one_writer_within_a_process(self, run: BenchmarkFolder) -> None:
        with pytest.raises(InvalidInputError, match="another process writes"):
            BenchmarkFolder.open(run.path, IDENTITY)
        run.close()
        BenchmarkFolder.open(run.path, IDENTITY).close()


class TestMethodFile:
    def test_grows_by_batches(self, run: BenchmarkFolder) -> None:
        file = method_file(run)
        assert (file.done, file.complete, list(file)) == (0, False, [])
        for done in (2, 5, 6):
            file.append(RECORDS[file.done : done])
            assert file.done == done
            assert list(file) == RECORDS[:done]
        assert file.complete

    def test_methods_and_seeds_apart(self, run: BenchmarkFolder) -> None:
        names = ["a", "A", "a/b", "a%2Fb", "a-1", "..", ".", "a b", "é", "CON", "\ud83d", "x" * 300]
        names += ["x" * 299 + "y", "a\nb", "~"]
        for name in names:
            for seed in (0, 1, 11):
                method_file(run, name, seed, batch_sizes=[1]).append([{"n": name, "s": seed}])
        files = list((run.path / "explanations").iterdir())
        assert len({f.name.lower() for f in files}) == len(files) == 3 * len(names)
        assert all(f.is_file() and len(f.name) < 150 and f.name.isascii() for f in files)
        for name in names:
            for seed in (0, 1, 11):
                [record] = method_file(run, name, seed, batch_sizes=[1])
                assert record == {"n": name, "s": seed}

    def test_first_line_says_how_it_was_made(self, run: BenchmarkFolder) -> None:
        header = json.loads(filled(run).path.read_text("ascii").splitlines()[0])
        assert header["method"] == "aml"
        assert header["seed"] == 0
        assert header["settings"] == SETTINGS
        assert header["plan"] == "p"

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"settings": {"n_steps": 10, "signed": True}}, "settings.n_steps is 50 there and 10"),
            ({"settings": {}}, "settings.signed is True there and not here"),
            ({"plan_digest": "q"}, "plan is 'p' there and 'q' here"),
            ({"batch_sizes": [3, 3]}, r"batches is \[2, 3, 1\] there and \[3, 3\] here"),
        ],
    )
    def test_made_otherwise(
        self, run: BenchmarkFolder, changed: Mapping[str, Any], message: str
    ) -> None:
        file = filled(run)
        with pytest.raises(InvalidInputError, match=f"{message}.*--overwrite"):
            method_file(run, **changed)
        assert list(file) == RECORDS

    @settings(max_examples=50)
    @given(
        records=st.lists(
            st.dictionaries(
                st.text(),
                st.recursive(
                    st.none()
                    | st.booleans()
                    | st.integers()
                    | st.floats(allow_nan=False, allow_infinity=False)
                    | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
                    max_leaves=5,
                ),
                max_size=3,
            ),
            min_size=1,
            max_size=4,
        )
    )
    def test_values_survive_exactly(
        self, tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]
    ) -> None:
        with BenchmarkFolder.open(tmp_path_factory.mktemp("run"), {}) as run:
            method_file(run, batch_sizes=[len(records)]).append(records)
            back = list(method_file(run, batch_sizes=[len(records)]))
        # 0.0 == -0.0 and 1 == 1.0, unlike their spelling.
        assert repr(back) == repr(records)

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, {1}, b"x", object()])
    def test_values_that_json_has_not(self, run: BenchmarkFolder, value: Any) -> None:
        file = filled(run, 1)
        with pytest.raises(InvalidInputError, match="record 4: expected finite numbers"):
            file.append([{}, {"scores": [0.5, value]}, {}])
        assert file.done == 2
        file.append(RECORDS[2:5])
        assert list(file) == RECORDS[:5]

    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_batches_of_another_size(self, run: BenchmarkFolder, count: int) -> None:
        file = method_file(run)
        with pytest.raises(InvalidInputError, match=f"expected 2, .* batch 1 .*, got {count}"):
            file.append(RECORDS[:count])
        assert file.done == 0

    def test_nothing_after_the_last_batch(self, run: BenchmarkFolder) -> None:
        file = filled(run)
        for records in (RECORDS[:1], []):
            with pytest.raises(InvalidInputError, match="records: expected 0"):
                file.append(records)

    @pytest.mark.parametrize(
        "changed",
        [{"method": ""}, {"seed": -1}, {"seed": True}, {"batch_sizes": []},
         {"batch_sizes": [1, 0]}, {"settings": {"x": math.inf}}],
    )  # fmt: skip
    def test_bad_arguments(self, run: BenchmarkFolder, changed: dict[str, Any]) -> None:
        with pytest.raises(InvalidInputError, match=f"^{next(iter(changed))}: expected"):
            method_file(run, **changed)
        assert not any((run.path / "explanations").iterdir())


class TestDamage:
    def test_cut_at_any_byte(self, run: BenchmarkFolder) -> None:
        file = filled(run)
        content = file.path.read_bytes()
        ends = [i + 1 for i, byte in enumerate(content) if byte == 10]
        near = {end + by for end in ends for by in (-1, 0, 1)}
        for size in sorted({*near, *range(0, len(content), 9)} - {len(content) + 1}):
            file.path.write_bytes(content[:size])
            records = max(0, sum(end <= size for end in ends) - 1)
            done = max(d for d in (0, *accumulate(BATCHES)) if d <= records)
            again = method_file(run)
            assert again.done == done
            assert list(again) == RECORDS[:done]
        # ... and the run goes on from there to the same file.
        file.path.write_bytes(content[: ends[4] + 7])
        again = filled_on(run)
        assert again.path.read_bytes() == content

    @pytest.mark.parametrize(
        "tail",
        [b"\0" * 700, b"\0\n", b"{\n", b'{"a": NaN}\n', b"[]\n", b"\xff\xfe\n", b"\n", b"{}"],
    )
    def test_garbage_at_the_end(self, run: BenchmarkFolder, tail: bytes) -> None:
        file = filled(run, 2)
        whole = file.path.read_bytes()
        file.path.write_bytes(whole + tail)
        again = method_file(run)
        assert again.done == 5
        again.append(RECORDS[5:])
        assert list(again) == RECORDS
        assert again.path.read_bytes().startswith(whole + b'{"index": 5')

    @pytest.mark.parametrize("line", range(1, 6))
    @pytest.mark.parametrize("garbage", [b"garbage", b"", b"[1]", b'{"index": 1', b"\xff"])
    def test_garbage_elsewhere(self, run: BenchmarkFolder, line: int, garbage: bytes) -> None:
        file = filled(run)
        lines = file.path.read_bytes().splitlines()
        lines[line - 1] = garbage
        content = b"\n".join(lines) + b"\n"
        file.path.write_bytes(content)
        with pytest.raises(InvalidInputError, match=rf"aml-0\.jsonl, line {line}: expected a rec"):
            method_file(run)
        assert file.path.read_bytes() == content

    def test_more_records_than_texts(self, run: BenchmarkFolder) -> None:
        file = filled(run)
        with file.path.open("ab") as stream:
            stream.write(b"{}\n")
        with pytest.raises(InvalidInputError, match="line 8: expected a record of the run"):
            method_file(run)

    @settings(max_examples=50)
    @given(data=st.data())
    def test_any_tail_leaves_what_was_done(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        with BenchmarkFolder.open(tmp_path_factory.mktemp("run"), IDENTITY) as run:
            batches = data.draw(st.integers(0, 2))
            file = filled(run, batches)
            tail = data.draw(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"")))
            with file.path.open("ab") as stream:
                stream.write(tail)
            assert list(method_file(run)) == RECORDS[: file.done]
            assert list(filled_on(run)) == RECORDS


def filled_on(run: BenchmarkFolder) -> MethodFile:
    """The file, gone on with where it stopped."""
    file = method_file(run)
    for end in accumulate(BATCHES):
        if end > file.done:
            file.append(RECORDS[file.done : end])
    return file


def child(script: str) -> subprocess.Popen[bytes]:
    """A process that runs a script, without the seconds that importing PyTorch takes."""
    package = Path(captum_aml.__file__).parent
    bare = f"""
        import sys, types
        for name, path in [("captum_aml", {str(package)!r}),
                           ("captum_aml.benchmark", {str(package / "benchmark")!r})]:
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__path__ = [path]
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(bare) + textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="limits and signals of POSIX")
class TestFullDiskAndKill:
    def test_no_space(self, run: BenchmarkFolder) -> None:
        """A real limit on the size of files stands for a full disk."""
        script = f"""
            import errno, os, resource
            from captum_aml.benchmark.store import BenchmarkFolder
            run = BenchmarkFolder.open({str(run.path)!r}, {IDENTITY!r})
            file = run.method_file("m", 0, {{}}, "p", [1] * 100)
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
            try:
                for i in range(100):
                    file.append([{{"index": i, "text": "x" * 1000}}])
            except OSError as error:
                assert error.errno == errno.EFBIG, error
                size = os.path.getsize(file.path)
                print(file.done, size, error, flush=True)
                assert f"the {{file.done}} explanations written before are kept" in str(error)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            file.append([{{"index": file.done, "text": "after"}}])
        """
        run.close()
        with child(script) as process:
            assert process.stdout is not None
            done, _, message = process.stdout.readline().decode().split(" ", 2)
        assert process.returncode == 0
        assert "File too large" in message
        with BenchmarkFolder.open(run.path, IDENTITY) as again:
            file = again.method_file("m", 0, {}, "p", [1] * 100)
            records = list(file)
        assert 5 <= int(done) < 10
        assert [r["index"] for r in records] == list(range(int(done) + 1))
        assert records[-1]["text"] == "after"

    def test_disk_that_does_not_take_it(
        self, run: BenchmarkFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = filled(run, 1)
        content = file.path.read_bytes()

        def fsync(handle: int) -> None:
            raise OSError(28, os.strerror(28))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            with pytest.raises(
                OSError, match=r"No space left on device; the 2 explanations .* kept: '.*aml-0"
            ):
                file.append(RECORDS[2:5])
        assert file.done == 2
        assert file.path.read_bytes() == content
        assert list(file) == RECORDS[:2]
        file.append(RECORDS[2:5])
        assert list(method_file(run)) == RECORDS[:5]

    def test_killed_at_any_moment(self, run: BenchmarkFolder) -> None:
        """A process is killed again and again; each goes on where the one before stopped."""
        script = f"""
            from captum_aml.benchmark.store import BenchmarkFolder
            with BenchmarkFolder.open({str(run.path)!r}, {IDENTITY!r}) as run:
                file = run.method_file("m", 0, {{}}, "p", [3] * 100_000)
                print(file.done, flush=True)
                while True:
                    first = file.done
                    file.append(
                        [{{"index": first + i, "text": "x" * 5000}} for i in range(3)]
                    )
                    print(file.done, flush=True)
        """
        run.close()
        rng = random.Random(0)
        done = 0
        for _ in range(12):
            with child(script) as process:
                assert process.stdout is not None
                started = int(process.stdout.readline())
                assert started >= done
                time.sleep(rng.uniform(0.0, 0.1))
                process.send_signal(signal.SIGKILL)
                reported = [int(n) for n in process.stdout.read().split(b"\n")[:-1]]
            done = max([started, *reported])
            with BenchmarkFolder.open(run.path, IDENTITY) as again:
                file = again.method_file("m", 0, {}, "p", [3] * 100_000)
                assert file.done in (done, done + 3)
                assert [r["index"] for r in file] == list(range(file.done))
            done = file.done
        assert done > 0
