"""A comparison of attribution methods on a model and data of the user's own.

``run_benchmark`` explains texts with every method, scores the explanations by every metric, and
writes a report; ``captum-aml benchmark`` does the same from the command line.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
