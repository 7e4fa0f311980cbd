r"""The log-probability of a target as the forward function of a language model.

For a row of token ids :math:`x` of which the tokens at the places :math:`E` are the target,

.. math:: F(x) = \frac{1}{|E|} \sum_{t \in E} \log p(x_t \mid x_1, \dots, x_{t-1}).

With one such token that is its log-probability after those before it (teacher forcing). Of a
whole answer it is the mean, so that :math:`e^F` is the geometric mean of its tokens' probabilities:
the sum, which Captum reads, makes the probability of an answer of many tokens vanish, and the
inverse term, :math:`-\log(1 - p)`, would say nothing about any mask.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from captum_aml.exceptions import InvalidInputError


class TargetLogProbability:
    """The mean log-probability of marked tokens under a causal language model.

    Called with the ids of whole rows, prompt and target, it runs the model once, without a
    key-value cache, and requests no other logits than those that predict a marked token, where
    its arguments allow it.

    Args:
        model: A causal language model that is called as those of Hugging Face are.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        parameters = inspect.signature(model.forward).parameters
        self._named = set(parameters)
        self._takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, target_mask: Tensor) -> Tensor:
        """The function above.

        Args:
            input_ids: Token ids, (N, S), padded on the right.
            attention_mask: 1 at tokens and 0 at padding, (N, S); or what is added to attention
                logits, (N, 1, S or 1, S), as removal through attention makes it. The model's own
                causality holds in any case.
            target_mask: True at tokens of the target, bool (N, S): at least one in a row, and
                never the first, which nothing predicts.

        Returns:
            Tensor (N,): log-probabilities, float32 at least.
        """
        places = target_mask.any(dim=0).nonzero().flatten()
        logits = self._logits(input_ids, attention_mask, places - 1)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        # Of a model on several devices the logits need not be where the ids are.
        wanted = input_ids[:, places].unsqueeze(-1).to(logits.device)
        marked = target_mask[:, places].to(logits.device)
        log_probs = logits.gather(-1, wanted).squeeze(-1) - logits.logsumexp(dim=-1)
        return log_probs.masked_fill(~marked, 0.0).sum(dim=1) / marked.sum(dim=1)

    def _logits(self, input_ids: Tensor, attention_mask: Tensor, places: Tensor) -> Tensor:
        """The logits (N, P, V) at P places."""
        named: dict[str, Any] = {"input_ids": input_ids}
        if self._takes("attention_mask"):
            named["attention_mask"] = attention_mask
        if attention_mask.dim() == 4:
            named["attention_mask"] = self._additive(attention_mask)
            if "position_ids" in self._named:
                # Models that number positions by the attention mask cannot read this one.
                length = input_ids.shape[1]
                order = torch.arange(length, device=input_ids.device)
                named["position_ids"] = order.expand(input_ids.shape[0], -1)
        if self._takes("use_cache"):
            named["use_cache"] = False
        if "logits_to_keep" in self._named:
            named["logits_to_keep"] = places
        output = self.model(**named)
        logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
        if isinstance(logits, Tensor) and logits.dim() == 4 and logits.shape[1] == 1:
            logits = logits[:, 0]  # Llama 4 has a dimension more
        if not isinstance(logits, Tensor) or logits.dim() != 3:
            got = type(output).__name__ if logits is None else f"shape {tuple(logits.shape)}"
            raise InvalidInputError(
                "attr_method: expected its forward function to be a causal language model, which "
                f"gives logits (N, L, V), got {got}"
            )
        return logits if logits.shape[1] == len(places) else logits[:, places.to(logits.device)]

    def _additive(self, mask: Tensor) -> Tensor:
        """An additive mask (N, 1, S, S) that is causal, in the model's dtype."""
        length = mask.shape[-1]
        dtype = next((p.dtype for p in self.model.parameters()), mask.dtype)
        lowest = torch.finfo(dtype).min
        mask = mask.clamp(min=lowest).to(dtype)
        if mask.shape[-2] == length and length > 1:
            return mask
        later = torch.ones(length, length, dtype=torch.bool, device=mask.device).triu(1)
        return mask.expand(-1, -1, length, -1).masked_fill(later, lowest)

    def _takes(self, name: str) -> bool:
        return name in self._named or self._takes_any
