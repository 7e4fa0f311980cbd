"""The table of all scores comes back as it was, and is complete or not there."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from captum_aml.benchmark.report.serialization import SCORE_COLUMNS, write_scores_parquet
from captum_aml.exceptions import InvalidInputError


class TestScoresParquet:
    @pytest.fixture(autouse=True)
    def parquet(self) -> Any:
        return pytest.importorskip("pyarrow.parquet")

    def test_rows_come_back(self, tmp_path: Path, parquet: Any) -> None:
        row = {
            "method": "a/b",
            "seed": 3,
            "index": 7,
            "id": "é",
            "text": "so 🎬",
            "label": 1,
            "tokens": ["so", "🎬"],
            "offsets": [(0, 2), [3, 4]],
            "scores": [0.1, -1e-300],
            "predicted": 1,
            "probability": 1 / 3,
            "target": 0,
            "target_probability": 2 / 3,
            "n_tokens_cut": 0,
            "forward_passes": 51,
            "backward_passes": 50.5,
            "seconds": 0.25,
            "peak_memory_mib": None,
            "error": None,
        }
        assert set(row) == set(SCORE_COLUMNS)
        failed = {"method": "a", "seed": 0, "index": 1, "error": "no gradient \ud83d"}
        path = tmp_path / "scores.parquet"
        assert write_scores_parquet(path, iter([row, failed])) == 2
        table = parquet.read_table(path)
        assert table.column_names == list(SCORE_COLUMNS)
        first, second = table.to_pylist()
        assert first == {**row, "offsets": [[0, 2], [3, 4]]}
        nothing = dict.fromkeys(SCORE_COLUMNS)
        assert second == {**nothing, **failed, "error": "no gradient ?"}

    def test_rows_are_written_as_they_come(self, tmp_path: Path, parquet: Any) -> None:
        sizes = []

        def records() -> Iterator[dict[str, Any]]:
            for i in range(2000):
                sizes.append(sum(p.stat().st_size for p in tmp_path.iterdir()))
                yield {"method": "m", "seed": 0, "index": i, "scores": [random.random()] * 50}

        path = tmp_path / "scores.parquet"
        assert write_scores_parquet(path, records()) == 2000
        assert sizes[-1] > sizes[1000] > sizes[0]
        assert parquet.read_table(path)["index"].to_pylist() == list(range(2000))

    def test_none(self, tmp_path: Path, parquet: Any) -> None:
        assert write_scores_parquet(tmp_path / "a", []) == 0
        assert parquet.read_table(tmp_path / "a").num_rows == 0

    @pytest.mark.parametrize(
        ("record", "message"),
        [
            ({"method": "m", "speed": 1}, "expected the columns method, .*, got 'speed'"),
            ({"seed": "x"}, "in rows 1 to 2, got others"),
            ({"scores": ["x"]}, "in rows 1 to 2, got others"),
            ({"seed": 2**70}, "in rows 1 to 2, got others"),
        ],
    )
    def test_bad_records_leave_what_was_there(
        self, tmp_path: Path, record: dict[str, Any], message: str
    ) -> None:
        path = tmp_path / "scores.parquet"
        path.write_text("before")
        with pytest.raises(InvalidInputError, match=message):
            write_scores_parquet(path, [{"method": "m"}, record])
        assert path.read_text() == "before"
        assert [p.name for p in tmp_path.iterdir()] == ["scores.parquet"]
