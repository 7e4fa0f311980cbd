"""
Explain a sentiment classifier in three lines
=============================================

From a model and a text to the words that decide: :class:`~captum_aml.text.TextExplainer` takes a
folder, a hub id, a ``transformers`` pipeline, or a model and its tokenizer, and gives an
:class:`~captum_aml.text.Explanation` for each text.

Run it as a script with a sequence classifier of your own::

    python examples/sentiment.py --model FOLDER_OR_HUB_ID --text "..." --output page.html

Without ``--model`` it explains the small classifier of reviews that comes with the package, and
needs no network.
"""

import argparse

import matplotlib.pyplot as plt

from captum_aml.reviews import generate_reviews, reviews_classifier_path, reviews_masker_path
from captum_aml.text import TextExplainer, write_explanations

parser = argparse.ArgumentParser(description="Explain texts with a sequence classifier.")
parser.add_argument("--model", help="a sequence classifier: a folder or a hub id")
parser.add_argument("--masker", help="a folder that `captum-aml fit` or `save_pretrained` wrote")
parser.add_argument("--text", help="a text to explain")
parser.add_argument("--output", help="a page to write, .html or another ending")
parser.add_argument("--smoke", action="store_true", help="fewer texts")
options = parser.parse_args()

text = options.text or "We stayed for two nights in May. The room was not clean."
model = options.model or reviews_classifier_path()

# %%
# Three lines
# -----------
# Nothing has been fitted: the gradient of AML's objective, averaged over 16 random masks of this
# text and refined by a regression on 18 subsets of its tokens, says what each contributes to the
# prediction.

explainer = TextExplainer(model)
explanation = explainer(text)[0]
explanation

# %%
# In a notebook, as here, an explanation shows itself, with the scores on hover. In a script there
# are its fields.

print(explanation.predicted_label, f"{explanation.probability:.3f}")
for token, (start, end), score in zip(
    explanation.tokens, explanation.offsets, explanation.scores, strict=True
):
    print(f"{score:6.2f}  {token:8}  characters {start} to {end}")

# %%
# Another class
# -------------
# Without a target the predicted class is explained; any other can be named. What opposes a class
# has a score below 0.

mixed = "The staff was friendly. The rooms were dirty."
for label in explainer.text_model.label_names:
    about = explainer(mixed, target=label)[0]
    print(f"{label} ({about.target_probability:.2f}): {about.top(1)}")

# %%
# Fit once, explain often
# -----------------------
# A *masker* learns from many texts, without labels, to propose a mask in one pass, where sixteen
# passes with gradients and eighteen without were needed above. The package brings one for its
# classifier; ``explainer.fit(texts)`` makes one for yours, ``save_pretrained`` keeps it.

if options.model is None or options.masker is not None:
    fitted = TextExplainer(model, masker=options.masker or reviews_masker_path())
    texts = [review.text for review in generate_reviews(5 if options.smoke else 200, seed=7)]
    explanations = fitted(texts, show_progress=not options.smoke)
    for each in explanations[:5]:
        highest = each.top(1)[0][1]
        words = ", ".join(word for word, score in each.top(2) if score > highest / 2)
        print(f"{each.predicted_label:8}  {words:22}  {each.text}")

# %%
# Beside other methods
# --------------------
# ``method`` is a name from :func:`captum_aml.methods.available`, or any of Captum's attribution
# classes as an instance. Scores of Integrated Gradients, of occlusion and of AML are signed, and
# have the size of what they explain.

names = ("aml", "integrated-gradients", "occlusion", "random")
compared = [TextExplainer(explainer.text_model, method=name)(text)[0] for name in names]

figure, axes = plt.subplots(1, len(names), figsize=(12, 4.5), layout="constrained")
for each, axis in zip(compared, axes, strict=True):
    each.plot(ax=axis)
plt.show()

# %%
# A page
# ------
# ``write_explanations`` writes a page, a table or JSON lines, by the ending of the file's name,
# while the explanations come in: ``explainer.stream`` keeps no more than a few batches in memory.

if options.output:
    write_explanations(options.output, explainer.stream([text]))
