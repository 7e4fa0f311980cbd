from .batches import TextBatches, TextSurvey
from .data import LabelledText, TextSource, read_texts
from .encoding import BaselineToken, TextBatch, TokenizedText
from .explainer import TextExplainer
from .explanation import Explanation
from .inputs import Text, TextLike
from .models.answers import Answer
from .models.base import Question, TextModel
from .models.classifier import TextClassifier
from .models.fill_mask import MaskFiller
from .models.generation import TextGenerator
from .models.masked_prompt import MaskedPromptClassifier
from .models.multi_label import MultiLabelClassifier
from .models.multiple_choice import MultipleChoiceModel
from .models.prompt import PromptClassifier
from .models.question_answering import QuestionAnswerer
from .models.registry import register_text_model, tasks
from .models.regression import TextRegressor
from .models.similarity import SimilarityModel
from .models.targets import Target
from .models.token_classification import Entity, TokenClassifier
from .models.windowed import WindowedClassifier, WindowedMultiLabelClassifier, WindowedRegressor
from .models.zero_shot import ZeroShotClassifier
from .units import ScoredUnit
from .writing import write_explanations

__all__ = [
    "Answer",
    "BaselineToken",
    "Entity",
    "Explanation",
    "LabelledText",
    "MaskFiller",
    "MaskedPromptClassifier",
    "MultiLabelClassifier",
    "MultipleChoiceModel",
    "PromptClassifier",
    "Question",
    "QuestionAnswerer",
    "ScoredUnit",
    "SimilarityModel",
    "Target",
    "Text",
    "TextBatch",
    "TextBatches",
    "TextClassifier",
    "TextExplainer",
    "TextGenerator",
    "TextLike",
    "TextModel",
    "TextRegressor",
    "TextSource",
    "TextSurvey",
    "TokenClassifier",
    "TokenizedText",
    "WindowedClassifier",
    "WindowedMultiLabelClassifier",
    "WindowedRegressor",
    "ZeroShotClassifier",
    "read_texts",
    "register_text_model",
    "tasks",
    "write_explanations",
]
