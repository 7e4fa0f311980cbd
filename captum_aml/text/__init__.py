"""From texts to explanations: classifiers, tokens with their characters, files in and out."""

from typing import TYPE_CHECKING

from captum_aml._utils.lazy import lazy_names

if TYPE_CHECKING:
    from captum_aml.text.batches import TextBatches, TextSurvey, fit_batches
    from captum_aml.text.classifier import TextClassifier
    from captum_aml.text.data import LabelledText, TextSource, load_texts, read_lines, read_texts
    from captum_aml.text.encoding import BaselineToken, TextBatch, TokenizedText
    from captum_aml.text.explainer import TextExplainer
    from captum_aml.text.explanation import Explanation
    from captum_aml.text.inputs import Text, TextLike
    from captum_aml.text.model import TextModel, TextModelKind, register_text_model
    from captum_aml.text.prompt import PromptClassifier
    from captum_aml.text.units import ScoredUnit
    from captum_aml.text.writing import write_explanations

__getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "BaselineToken",
    "Explanation",
    "LabelledText",
    "PromptClassifier",
    "ScoredUnit",
    "Text",
    "TextBatch",
    "TextBatches",
    "TextClassifier",
    "TextExplainer",
    "TextLike",
    "TextModel",
    "TextModelKind",
    "TextSource",
    "TextSurvey",
    "TokenizedText",
    "fit_batches",
    "load_texts",
    "read_lines",
    "read_texts",
    "register_text_model",
    "write_explanations",
]
