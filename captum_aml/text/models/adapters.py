"""Adapters of PEFT as they are saved: a folder with what was tuned, which names its base model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils.peft_utils import find_adapter_config_file

from captum_aml._utils.optional import require
from captum_aml.exceptions import InvalidInputError

#: How PEFT calls what a model is tuned for, and what ends the names of classes for it.
_TASKS = {
    "SEQ_CLS": "ForSequenceClassification",
    "TOKEN_CLS": "ForTokenClassification",
    "QUESTION_ANS": "ForQuestionAnswering",
    "CAUSAL_LM": "ForCausalLM",
    "SEQ_2_SEQ_LM": "ForConditionalGeneration",
}
#: What goes before a weight's name in an adapter's file.
_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Adapter:
    """A saved adapter.

    Attributes:
        source: Its folder or hub id.
        base: The folder or hub id of its base model.
        values: Its configuration.
    """

    source: str
    base: str
    values: Mapping[str, Any]

    @classmethod
    def find(cls, source: str) -> Adapter | None:
        """The adapter of a folder or hub id; None where there is none.

        Raises:
            InvalidInputError: Its configuration is damaged, or names no base model.
        """
        if os.path.exists(source) and not os.path.isdir(source):
            return None
        try:
            file = find_adapter_config_file(source)
        except Exception:  # loading the model says what is wrong with a hub id
            return None
        if file is None:
            return None
        try:
            values = json.loads(Path(file).read_text(encoding="utf-8"))
            base = values["base_model_name_or_path"]
            if not isinstance(base, str) or not base:
                raise TypeError
        except (OSError, ValueError, KeyError, TypeError):
            raise InvalidInputError(
                f"model: expected an adapter whose adapter_config.json names its base model, got "
                f"{source!r}"
            ) from None
        beside = Path(source) / base
        # A relative path that leads somewhere from the adapter's folder, but not from here.
        if not os.path.exists(base) and beside.is_dir():
            base = os.fspath(beside)
        return cls(source, base, values)

    @property
    def architectures(self) -> list[str]:
        """The name, or its end, of the model class that was tuned; [] where nothing says it."""
        named = (self.values.get("auto_mapping") or {}).get("base_model_class")
        task = _TASKS.get(str(self.values.get("task_type")))
        return [name for name in (task, named) if name is not None][:1]

    def config(self) -> PreTrainedConfig:
        """The model's configuration: the folder's own, else that of the base model."""
        own = os.path.isfile(os.path.join(self.source, "config.json"))
        place = self.source if own else self.base
        config: PreTrainedConfig = AutoConfig.from_pretrained(place, trust_remote_code=False)
        return config

    # One of the Auto classes, which share no type.
    def load(
        self, model_class: Any, config: PreTrainedConfig, *, dtype: torch.dtype
    ) -> tuple[PreTrainedModel, list[str]]:
        """The base model with the adapter merged into its weights.

        Args:
            model_class: The Auto class that makes the model.
            config: The configuration, as ``config`` gives it.
            dtype: The precision of the weights.

        Returns:
            The model, and the names of the weights that neither base nor adapter has.

        Raises:
            ImportError: peft is not installed.
            InvalidInputError: The adapter is none that can be merged.
        """
        require("peft", package="peft", feature="an adapter's folder", extra="peft")
        from peft import PeftModel
        from peft.utils import get_peft_model_state_dict, load_peft_weights

        saved: dict[str, Tensor] = load_peft_weights(self.source, device="cpu")
        whole = {name.removeprefix(_PREFIX): tensor for name, tensor in saved.items()}
        with torch.device("meta"):
            shapes = model_class.from_config(config).state_dict()
        embedding, n_labels = None, None
        for name, tensor in whole.items():
            known = shapes.get(name)
            if known is not None and known.shape != tensor.shape:
                if "embed" in name or "lm_head" in name:
                    embedding = len(tensor)
                else:
                    n_labels = len(tensor)
        if n_labels is not None:
            config.num_labels = n_labels
        base, info = model_class.from_pretrained(
            self.base,
            config=config,
            dtype=dtype,
            trust_remote_code=False,
            output_loading_info=True,
        )
        if embedding is not None:
            base.resize_token_embeddings(embedding)
        tuned = PeftModel.from_pretrained(base, self.source, torch_device="cpu")
        if not hasattr(tuned.base_model, "merge_and_unload"):
            raise InvalidInputError(
                f"model: expected an adapter that works inside of its model's layers (LoRA and its "
                f"kin), got {self.source!r}, which is {self.values.get('peft_type')}"
            )
        missing = set(get_peft_model_state_dict(tuned)) - set(saved)
        missing |= {name for name in info["missing_keys"] if name not in whole}
        names = sorted(name.removeprefix(_PREFIX) for name in missing)
        return tuned.merge_and_unload(), names
