"""A file put into a package of registered things is found without an edit elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# By package: a file with one registration in it, and an expression that finds what it registers.
FILES = {
    "captum_aml.methods": (
        "from captum_aml.methods.registry import MethodSpec, register\n"
        "register(MethodSpec('mine', 'A method.', lambda *_: None))\n",
        "'mine' in import_module('captum_aml.methods').available()",
    ),
    "captum_aml.metrics": (
        "from captum_aml.metrics.registry import Metric, register_metric\n"
        "@register_metric(Metric('mine', 'Mine', True, 'complexity', 'A metric.'))\n"
        "def mine(inputs, scores, *_): return scores.sum(dim=1)\n",
        "'mine' in import_module('captum_aml.metrics.registry').available_metrics()",
    ),
    "captum_aml.maskers": (
        "from torch import nn\n"
        "from captum_aml.maskers.registry import register_masker\n"
        "@register_masker('mine')\n"
        "class Mine(nn.Linear):\n"
        "    from_model = classmethod(lambda cls, model, **_: cls(1, 1))\n",
        "'mine' in import_module('captum_aml.maskers.registry').masker_names()",
    ),
    "captum_aml.text.models": (
        "from captum_aml.text.models.classifier import TextClassifier\n"
        "from captum_aml.text.models.registry import register_text_model\n"
        "@register_text_model\n"
        "class Mine(TextClassifier):\n"
        "    architectures = ('ForMine',)\n",
        "import_module('captum_aml.text.models.registry').text_model_kind("
        "import_module('captum_aml.text.models.loading').ModelDescription(['BertForMine'])"
        ").__name__ == 'Mine'",
    ),
}
# The packages are read with a folder beside their own.
PROGRAM = """
import json, sys
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path

folder, checks = Path(sys.argv[1]), json.loads(sys.argv[2])

class Extended(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = super().find_spec(name, path, target)
        if name in checks:
            spec.submodule_search_locations.append(str(folder / name))
        return spec

sys.meta_path.insert(0, Extended)
print(json.dumps({name: eval(check) for name, check in checks.items()}))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bool]:
    """By package, whether the file in it is found."""
    folder = tmp_path_factory.mktemp("packages")
    for package, (content, _) in FILES.items():
        (folder / package).mkdir()
        (folder / package / "mine.py").write_text(content)
    checks = json.dumps({package: check for package, (_, check) in FILES.items()})
    arguments = [sys.executable, "-c", PROGRAM, str(folder), checks]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    result: dict[str, bool] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("package", FILES)
def test_a_file_in_the_package_is_found(package: str, found: dict[str, bool]) -> None:
    assert found[package] is True
