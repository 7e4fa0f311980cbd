"""Names of repositories, with nothing that answers for the hub."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from captum_aml._utils.hub import check_source
from captum_aml.exceptions import InvalidInputError

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{NOWHERE}/{{repo_id}}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))


@pytest.mark.usefixtures("unreachable")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "someone/something",
            "cannot be asked .*HF_HUB_OFFLINE",
        ),
        ("some thing", "no such repository on the hub"),
        ("./something", "there is no folder './something'$"),
        ("here/is/something", "there is no folder 'here/is/something'$"),
    ],
)
def test_names_of_nothing_are_refused_in_a_line(
    caplog: pytest.LogCaptureFixture, source: str, message: str
) -> None:
    with pytest.raises(
        InvalidInputError, match=f"^masker: expected a model, but .*{message}"
    ) as refused:
        check_source(source, "a model", argument="masker")
    assert "\n" not in str(refused.value)
    assert not caplog.records, "of tries that are made again"


def test_a_repository_that_is_kept_needs_no_network(
    monkeypatch: pytest.MonkeyPatch, unreachable: None, tmp_path: Path
) -> None:
    kept = tmp_path / "models--someone--something"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0" * 40)
    (kept / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (kept / "snapshots" / ("0" * 40) / "config.json").write_text("{}")
    check_source("someone/something", "a model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InvalidInputError, match="HF_HUB_OFFLINE says not to ask"):
        check_source("someone/else", "a model")
