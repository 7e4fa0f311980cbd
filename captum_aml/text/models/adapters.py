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
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
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
#: The Auto classes of tasks whose head has an output for each label.
_WITH_LABELS: dict[str, Any] = {
    "SEQ_CLS": AutoModelForSequenceClassification,
    "TOKEN_CLS": AutoModelForTokenClassification,
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
        end = _TASKS.get(str(self.values.get("task_type")), named)
        return [] if end is None else [end]

    def config(self) -> PreTrainedConfig:
        """The model's configuration: the folder's own, else the base model's.

        As many labels as the adapter's head has outputs, where it is the base model's.
        """
        own = os.path.isfile(os.path.join(self.source, "config.json"))
        place = self.source if own else self.base
        config: PreTrainedConfig = AutoConfig.from_pretrained(place, trust_remote_code=False)
        model_class = _WITH_LABELS.get(str(self.values.get("task_type")))
        if own or model_class is None:
            return config
        with torch.device("meta"):
            shapes = model_class.from_config(config).state_dict()
        for name, tensor in self.weights().items():
            # The vocabulary may be another, too.
            if name in shapes and len(shapes[name]) == config.num_labels != len(tensor):
                config.num_labels = len(tensor)
                break
        return config

    def weights(self) -> dict[str, Tensor]:
        """What it holds; what replaces a weight of the base model is called as it.

        Raises:
            ImportError: peft is not installed.
        """
        require("peft", package="peft", feature="an adapter's folder", extra="peft")
        from peft.utils import load_peft_weights

        saved = load_peft_weights(self.source, device="cpu")
        return {name.removeprefix(_PREFIX): tensor for name, tensor in saved.items()}

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
        saved = self.weights()
        from peft import PeftModel
        from peft.utils import get_peft_model_state_dict

        base, info = model_class.from_pretrained(
            self.base,
            config=config,
            dtype=dtype,
            trust_remote_code=False,
            output_loading_info=True,
        )
        table = base.get_input_embeddings()
        for name, module in base.named_modules():
            tuned_table = saved.get(f"{name}.weight") if module is table else None
            if tuned_table is not None and len(tuned_table) != table.num_embeddings:
                base.resize_token_embeddings(len(tuned_table))
                break
        tuned = PeftModel.from_pretrained(base, self.source, torch_device="cpu")
        if not hasattr(tuned.base_model, "merge_and_unload"):
            raise InvalidInputError(
                f"model: expected an adapter that works inside of its model's layers (LoRA and its "
                f"kin), got {self.source!r}, which is {self.values.get('peft_type')}"
            )
        missing = {name.removeprefix(_PREFIX) for name in get_peft_model_state_dict(tuned)}
        missing = (missing | set(info["missing_keys"])) - set(saved)
        return tuned.merge_and_unload(), sorted(missing)
