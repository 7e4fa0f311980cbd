"""From texts to explanations: classifiers, tokens with their characters, files in and out."""

from captum_aml.text.batches import TextBatches, TextSurvey, fit_batches
from captum_aml.text.classifier import TextClassifier
from captum_aml.text.data import LabelledText, TextSource, load_texts, read_lines, read_texts
from captum_aml.text.encoding import BaselineToken, TextBatch, TokenizedText
from captum_aml.text.explainer import TextExplainer
from captum_aml.text.explanation import Explanation, headline, text_card
from captum_aml.text.inputs import Text, TextLike
from captum_aml.text.model import TextModel, TextModelKind, register_text_model
from captum_aml.text.prompt import PromptClassifier
from captum_aml.text.units import ScoredUnit
from captum_aml.text.writing import readable, to_json_line, write_explanations

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
    "headline",
    "load_texts",
    "read_lines",
    "read_texts",
    "readable",
    "register_text_model",
    "text_card",
    "to_json_line",
    "write_explanations",
]
