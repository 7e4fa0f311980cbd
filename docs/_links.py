"""Links into the references of Python, PyTorch and Captum, without the network.

Intersphinx reads a project's inventory: which page has which name. The inventories themselves
would have to be fetched; the few names that these pages mention are listed here instead.
"""

from __future__ import annotations

import zlib
from pathlib import Path

PROJECTS = {
    "python": "https://docs.python.org/3",
    "torch": "https://docs.pytorch.org/docs/stable",
    "captum": "https://captum.ai/api",
}

#: For each project its names by page; a page of "$" has the name of what it documents.
NAMES: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {
    "python": {
        "class": {
            "library/collections.abc.html": (
                "collections.abc.Callable",
                "collections.abc.Iterable",
                "collections.abc.Iterator",
                "collections.abc.Mapping",
                "collections.abc.Sequence",
            ),
            "library/functions.html": ("bool", "float", "int", "object"),
            "library/os.html": ("os.PathLike",),
            "library/pathlib.html": ("pathlib.Path",),
            "library/stdtypes.html": ("dict", "list", "str", "tuple"),
        },
        "data": {"library/constants.html": ("None",)},
        "exception": {
            "library/exceptions.html": (
                "FileNotFoundError",
                "ImportError",
                "RuntimeError",
                "TypeError",
                "ValueError",
            ),
        },
    },
    "torch": {
        "class": {
            "data.html": ("torch.utils.data.DataLoader",),
            "generated/$.html": ("torch.Generator", "torch.nn.Module", "torch.nn.DataParallel"),
            "tensor_attributes.html": ("torch.device", "torch.dtype"),
            "tensors.html": ("torch.Tensor",),
        },
    },
    "captum": {
        "class": {
            "base_classes.html": (
                "captum.attr.Attribution",
                "captum.attr.GradientAttribution",
                "captum.attr.LayerAttribution",
            ),
            "feature_ablation.html": ("captum.attr.FeatureAblation",),
            "integrated_gradients.html": ("captum.attr.IntegratedGradients",),
            "kernel_shap.html": ("captum.attr.KernelShap",),
            "layer.html": ("captum.attr.LayerIntegratedGradients",),
            "lime.html": ("captum.attr.Lime",),
            "llm_attr.html": (
                "captum.attr.LLMAttribution",
                "captum.attr.LLMAttributionResult",
                "captum.attr.LLMGradientAttribution",
            ),
            "noise_tunnel.html": ("captum.attr.NoiseTunnel",),
            "shapley_value_sampling.html": ("captum.attr.ShapleyValueSampling",),
        },
        "function": {
            "metrics.html": ("captum.metrics.infidelity", "captum.metrics.sensitivity_max"),
        },
    },
}


def write_inventories(folder: Path) -> dict[str, tuple[str, str]]:
    """Writes an inventory for each project, in Sphinx's format.

    Args:
        folder: Where to.

    Returns:
        A value for ``intersphinx_mapping``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mapping = {}
    for project, address in PROJECTS.items():
        lines = [
            f"{name} py:{role} 1 {page.replace('$', name)}#{name} -\n"
            for role, pages in NAMES[project].items()
            for page, names in pages.items()
            for name in names
        ]
        head = (
            f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
            "# The remainder of this file is compressed using zlib.\n"
        )
        path = folder / f"{project}.inv"
        path.write_bytes(head.encode() + zlib.compress("".join(lines).encode()))
        mapping[project] = (address, str(path))
    return mapping
