"""Fixtures of the commands: a saved classifier, and the program in this process."""

from __future__ import annotations

import pytest

from captum_aml.cli import main as cli
from tests._helpers.command_line import Result, Run
from tests._helpers.text_models import save_classifier


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_classifier(tmp_path_factory.mktemp("model")))


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in ("COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)

    def execute(*arguments: str) -> Result:
        with pytest.raises(SystemExit) as stop:
            cli.main(list(arguments))
        out, err = capfdbinary.readouterr()
        return Result(int(stop.value.code or 0), out.decode("utf-8"), err.decode("utf-8"))

    return execute
