"""Errors raised for what a caller can mend; each also subclasses the matching built-in one."""


class CaptumAMLError(Exception):
    """Base class of all errors that this package raises on purpose."""


class InvalidInputError(CaptumAMLError, ValueError):
    """An argument has a wrong shape, dtype, range or form."""


class NonFiniteError(CaptumAMLError, ValueError):
    """The explained model, or an objective, gave NaN or an infinite value."""


class NoGradientError(CaptumAMLError, ValueError):
    """The forward function's result has no gradient with respect to the mask."""


class LayerNotReachedError(CaptumAMLError, ValueError):
    """The forward function did not run the layer that carries the mask, or not just once."""


class NotFittedError(CaptumAMLError, RuntimeError):
    """A fitted masker is needed and there is none."""


class CheckpointError(CaptumAMLError, ValueError):
    """A saved masker is damaged, incomplete, or belongs to another model."""
