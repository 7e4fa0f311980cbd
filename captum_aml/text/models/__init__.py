"""Text models: models with their tokenizers as forward functions of token ids."""

from importlib import import_module
from pkgutil import iter_modules

# A module of this package registers its kind of text models where it is imported.
for _module in iter_modules(__path__, prefix=f"{__name__}."):
    import_module(_module.name)
