"""The names that ``captum_aml`` exports."""

import importlib
import subprocess
import sys

import pytest

import captum_aml

_HEAVY = ("torch", "captum", "transformers", "matplotlib", "numpy")


def test_every_exported_name_resolves_to_its_object():
    for name in captum_aml.__all__:
        value = getattr(captum_aml, name)
        if name != "__version__":
            assert value.__name__ == name
            assert getattr(importlib.import_module(value.__module__), name) is value


def test_dir_and_a_star_import_know_the_exported_names():
    assert set(captum_aml.__all__) <= set(dir(captum_aml))
    names: dict[str, object] = {}
    exec("from captum_aml import *", names)
    assert set(captum_aml.__all__) <= set(names)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="No captum_aml attribute AMLatribution"):
        captum_aml.AMLatribution  # noqa: B018


def test_import_of_the_package_loads_nothing_heavy():
    program = (
        f"import sys, captum_aml; dir(captum_aml); print([m for m in {_HEAVY} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
