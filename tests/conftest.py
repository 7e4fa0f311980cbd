"""Seeds and threads: every test starts from the same random state, on one thread; a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

torch.set_num_threads(1)
# shap's functions would be compiled for seconds, to run for milliseconds.
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")

# Derandomized: a run that passes passes again. Examples are few since each runs a model.
settings.register_profile(
    "captum_aml", derandomize=True, database=None, deadline=None, max_examples=30
)
settings.load_profile("captum_aml")


@pytest.fixture(autouse=True)
def _same_random_state() -> None:
    # torch.manual_seed takes milliseconds: it notes a stack trace for each kind of device that may
    # start later.
    torch.default_generator.manual_seed(0)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(0)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; a test that takes it is skipped where it or Playwright is missing."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    binary = next(filter(None, map(shutil.which, names)), None)
    if binary is None:
        pytest.skip("no Chromium is installed")
    with api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=binary, args=arguments)
        yield browser
        browser.close()
