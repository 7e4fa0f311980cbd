"""
Explain pairs of texts
======================

Natural language inference, paraphrases, a question and a passage: models of pairs read two texts
at once, and a pair goes where a text goes. Both sides are explained together, since neither
decides alone.

Run it as a script with a model of pairs of your own::

    python examples/pairs.py --model FOLDER_OR_HUB_ID --text "..." --text-pair "..."

Without ``--model`` it trains a small one, in seconds and without a network (see
``tiny_models.py``): does a claim follow from a review?
"""

import argparse

import matplotlib.pyplot as plt
from tiny_models import make_tiny_pair_encoder

from captum_aml import AMLAttribution
from captum_aml.text import TextClassifier, TextExplainer

parser = argparse.ArgumentParser(description="Explain pairs of texts.")
parser.add_argument("--model", help="a classifier of pairs: a folder or a hub id")
parser.add_argument("--text", help="the first text")
parser.add_argument("--text-pair", help="the second text")
parser.add_argument("--smoke", action="store_true", help="as without: it takes seconds")
options = parser.parse_args()

if options.model is None:
    classifier = TextClassifier(*make_tiny_pair_encoder())
else:
    classifier = TextClassifier.from_pretrained(options.model)

# %%
# A pair is a tuple
# -----------------
# A list of pairs is a batch, as a list of texts is. A mapping with ``text`` and ``text_pair`` does
# as well, so that rows of a data set can be given as they are.

pairs = [
    ("We came in May. The garden was lovely.", "They enjoyed it."),
    ("It was a Tuesday in June. The soup was stale.", "They enjoyed it."),
    {"text": "The garden was lovely.", "text_pair": "My sister wrote this."},
]
if options.text and options.text_pair:
    pairs.insert(0, (options.text, options.text_pair))

explainer = TextExplainer(classifier)
explanations = explainer(pairs)
for explanation in explanations:
    best = [f"{token.strip()} {score:.2f}" for token, score in explanation.top(2)]
    print(f"{explanation.predicted_label:14} {explanation.probability:.2f}  {', '.join(best)}")

# %%
# For "contradiction" one word of the review and one of the claim contribute most: without either
# there would be none.

explanations[0]

# %%

explanations[1]

# %%
# Which side decides
# ------------------
# ``parts`` holds the character spans of both texts in ``explanation.text``, so that scores can be
# added up for each.

for explanation in explanations:
    shares = []
    for start, end in explanation.parts:
        scores = [
            score
            for (first, last), score in zip(explanation.offsets, explanation.scores, strict=True)
            if start <= first and last <= end
        ]
        shares.append(sum(scores))
    print(f"{explanation.predicted_label:14} first text {shares[0]:+.2f}, second {shares[1]:+.2f}")

# %%
# Hold one side fixed
# -------------------
# "Which words of this review contradict this claim?" is another question: the claim is
# given, and only the review may be masked. One level below ``TextExplainer``, where reference ids
# say what is a token, the claim's tokens keep their own ids.

batch = classifier.collate(classifier.tokenize(pairs[1:2]))
ref_ids = classifier.baselines(batch)
second = batch.extra_inputs["token_type_ids"] == 1
ref_ids = ref_ids.where(~second, batch.input_ids)

aml = AMLAttribution(classifier, embedding_layer=classifier.embedding_layer)
scores = aml.attribute(
    batch.input_ids, baselines=ref_ids, additional_forward_args=batch.forward_args
)[0]

tokens = batch.texts[0].tokens
figure, axis = plt.subplots(figsize=(6, 4.5), layout="constrained")
axis.barh(range(len(tokens)), scores.tolist(), color="#60a5fa")
axis.set_yticks(range(len(tokens)), tokens)
axis.invert_yaxis()
axis.set(xlabel="contribution", title="The second text is held fixed")
axis.spines[["top", "right"]].set_visible(False)
plt.show()
