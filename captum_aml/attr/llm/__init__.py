"""Attribution to prompts, of what a causal language model writes."""

from captum_aml.attr.llm.attribution import LLMAMLAttribution

__all__ = ["LLMAMLAttribution"]
