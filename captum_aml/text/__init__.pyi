from .batches import TextBatches, TextSurvey
from .data import LabelledText, TextSource, read_texts
from .encoding import BaselineToken, TextBatch, TokenizedText
from .explainer import TextExplainer
from .explanation import Explanation
from .inputs import Text, TextLike
from .models.base import TextModel, register_text_model
from .models.classifier import TextClassifier
from .models.prompt import PromptClassifier
from .units import ScoredUnit
from .writing import write_explanations

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
    "TextSource",
    "TextSurvey",
    "TokenizedText",
    "read_texts",
    "register_text_model",
    "write_explanations",
]
