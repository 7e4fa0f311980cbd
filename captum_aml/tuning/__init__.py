"""Masks for given instances, all instances of a batch at once: by the gradient, or by tuning.

Tuning is of masks, or of a masker. Every example has its own parameters, its own loss and its own
best step, so that its result does not depend on the others.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
