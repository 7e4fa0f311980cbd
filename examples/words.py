"""
Words and sentences instead of tokens
=====================================

Tokenizers cut words into pieces, and people read words. There are two ways from one to the other,
and they answer different questions:

- *Show* words: explain tokens, and pool the scores of the tokens of each word.
- *Mask* words: one mask value for each word, so that the method can only keep or remove it as a
  whole. With sentences, that makes long documents workable.

Run it as a script with a sequence classifier of your own::

    python examples/words.py --model FOLDER_OR_HUB_ID --text "..."

Without ``--model`` it trains a small one whose tokens are pieces of words, in seconds and without
a network (see ``tiny_models.py``).
"""

import argparse

import matplotlib.pyplot as plt
from tiny_models import make_tiny_encoder

from captum_aml.text import TextClassifier, TextExplainer

parser = argparse.ArgumentParser(description="Explain tokens, words and sentences.")
parser.add_argument("--model", help="a sequence classifier: a folder or a hub id")
parser.add_argument("--text", help="a text of several sentences")
parser.add_argument("--smoke", action="store_true", help="as without: it takes seconds")
options = parser.parse_args()

text = options.text or "We came in August. The breakfast was dreadful. My brother drove."
if options.model is None:
    classifier = TextClassifier(*make_tiny_encoder())
else:
    classifier = TextClassifier.from_pretrained(options.model)
print(" ".join(classifier.tokenize([text])[0].tokens))

# %%
# Show words
# ----------
# Tokens are explained as usual. ``words()`` then pools by characters, so that it works for any
# tokenizer: by the highest score of a word's tokens (``max``), or their ``sum`` or ``mean``.

by_token = TextExplainer(classifier)(text)[0]
by_token

# %%

for pooling in ("max", "sum"):
    best = sorted(by_token.words(pooling), key=lambda word: -word.score)[:2]
    print(pooling, [(word.text, round(word.score, 2)) for word in best])

# %%
# The highest piece decides with ``max``. A ``sum`` suits contributions: it is what a word's tokens
# contribute together.
#
# Mask words
# ----------
# With ``unit="word"`` the scores *are* those of words. A word is kept or removed as a whole, which
# is closer to the question that people ask. It works with every
# method: those that remove something remove a word, and of gradients a word gets the sum of its
# tokens.

by_word = TextExplainer(classifier, unit="word")(text)[0]
by_word

# %%
# Sentences
# ---------
# Of a long document, which sentence matters? ``unit="sentence"`` needs no more values than there
# are sentences.

by_sentence = TextExplainer(classifier, unit="sentence")(text)[0]
for sentence, score in zip(by_sentence.tokens, by_sentence.scores, strict=True):
    print(f"{score:6.2f}  {sentence}")

# %%
# All three together. A text longer than the model takes is explained in what the model saw, and
# ``n_tokens_cut`` says how much it did not see.

figure, axes = plt.subplots(1, 3, figsize=(12, 5), layout="constrained")
for explanation, axis in zip((by_token, by_word, by_sentence), axes, strict=True):
    explanation.plot(ax=axis)
    axis.set_title(f"unit: {explanation.unit}")
plt.show()

# %%
# Words of your own
# -----------------
# Words are found by Unicode's rules. Where these do not do, as in Chinese, give a ``segmenter``, a
# function from a text to the spans of its units, or give each text as a list of its words.

listed = TextExplainer(classifier, unit="word")([["The breakfast", "was dreadful", "."]])[0]
print([(word, round(score, 2)) for word, score in zip(listed.tokens, listed.scores, strict=True)])
