"""
Explain a decoder that answers a prompt
=======================================

A language model without a classification head classifies by what it goes on with:
``Text: ... Label:``, and then the likelier of two words.
:class:`~captum_aml.text.PromptClassifier` makes that a forward function, in which the prompt is
never masked and only the text is explained.

Run it as a script with a language model of your own::

    python examples/prompt_decoder.py --model FOLDER_OR_HUB_ID --encoder FOLDER_OR_HUB_ID

Without ``--model`` it trains a small decoder in Llama's style, in seconds and without a network
(see ``tiny_models.py``).
"""

import argparse
import random

import matplotlib.pyplot as plt
from tiny_models import OPINIONS, make_tiny_decoder, write_text

from captum_aml.reviews import reviews_classifier_path
from captum_aml.text import PromptClassifier, TextExplainer

parser = argparse.ArgumentParser(description="Explain a language model's answer to a prompt.")
parser.add_argument("--model", help="a causal language model: a folder or a hub id")
parser.add_argument("--encoder", help="an encoder to make a masker of: a folder or a hub id")
parser.add_argument("--text", help="a text to explain")
parser.add_argument("--smoke", action="store_true", help="fewer texts to fit on")
options = parser.parse_args()

text = options.text or "In June it rained. The soup was stale. My brother drove."

# %%
# A prompt and its label words
# ----------------------------
# The logit of a class is the log-probability of its word after the prompt, the sum over its tokens
# if it has several. ``examples`` and ``description`` would go before; like the rest of the prompt,
# they are not maskable.

template, labels = "Text: {text} Label:", {"negative": "negative", "positive": "positive"}
if options.model is None:
    model, tokenizer = make_tiny_decoder()
    classifier = PromptClassifier(model, tokenizer, template, labels)
else:
    classifier = PromptClassifier.from_pretrained(options.model, template, labels)

print(classifier.prompt(text))
print(dict(zip(classifier.label_names, classifier.predict([text])[0].tolist(), strict=True)))
print("a removed token becomes", classifier.baseline)

# %%
# The explanation
# ---------------
# It is of the text alone: its tokens, and its characters.

explanation = TextExplainer(classifier)(text)[0]
explanation

# %%
# A classifier is a forward function, so that every method of the registry explains it. An
# attention method reads where the last token of the prompt looks.

names = ("aml", "integrated-gradients", "occlusion", "attention")
figure, axes = plt.subplots(1, len(names), figsize=(12, 4.5), layout="constrained")
for name, axis in zip(names, axes, strict=True):
    TextExplainer(classifier, method=name)(text)[0].plot(ax=axis)
plt.show()

# %%
# A masker with another tokenizer
# -------------------------------
# A decoder reads from left to right, so that its hidden states at a word know nothing of what
# follows. The papers therefore explain decoders with an *encoder*, which has a tokenizer of its
# own: its scores are carried over by characters. Here that is the encoder of the package's
# classifier of reviews, which knows other words than the decoder.

rng = random.Random(0)
texts = [write_text(rng)[0] for _ in range(300)]
fitted = TextExplainer(classifier).fit(
    texts,
    masker=options.encoder or reviews_classifier_path(),
    epochs=4 if options.smoke else 10,
    learning_rate=1e-3,
)
print(type(fitted.attribution_.masker_).__name__)
fitted(text)[0]

# %%
# How often is the highest token the word that decides?

found = {"fitted masker": 0, "random": 0}
held_out = [write_text(rng)[0] for _ in range(100)]
opinions = {word for words in OPINIONS.values() for word in words}
for name, explainer in (
    ("fitted masker", fitted),
    ("random", TextExplainer(classifier, method="random")),
):
    for each in explainer(held_out):
        best = max(each.words(), key=lambda word: word.score)
        found[name] += best.text in opinions
print(found, "of", len(held_out))
