"""The graph that autograd keeps of how a tensor was computed."""

from __future__ import annotations

from torch import Tensor
from torch.autograd.graph import Node


def nodes_behind(node: Node | None) -> set[Node]:
    """A node of autograd's graph and all that its gradient is passed on to."""
    seen: set[Node] = set()
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if each is not None and each not in seen:
            seen.add(each)
            waiting += [following for following, _ in each.next_functions]
    return seen


def without_derivative(output: Tensor) -> list[Node]:
    """The operations behind a tensor that have no derivative, such as those of int8 layers.

    Each has a node that passes nothing on, and says so by a warning in the backward pass.
    """
    return [n for n in nodes_behind(output.grad_fn) if n.name().endswith("NotImplemented")]
