"""
Explain what a language model writes
====================================

Captum explains generated text with :class:`~captum.attr.LLMAttribution` and
:class:`~captum.attr.LLMGradientAttribution`. :class:`~captum_aml.attr.LLMAMLAttribution` stands
beside them: the same inputs, the same call, the same result with its plots, and scores from masks
over the prompt.

Run it as a script with a language model of your own::

    python examples/generation.py --model FOLDER_OR_HUB_ID --prompt "..."

Without ``--model`` it trains a small decoder in Llama's style that replies to reviews, in seconds
and without a network (see ``tiny_models.py``).
"""

import argparse

import matplotlib.pyplot as plt
import torch
from captum.attr import FeatureAblation, LLMAttribution, TextTemplateInput, TextTokenInput
from tiny_models import REPLY, make_tiny_decoder

from captum_aml import AMLAttribution, LLMAMLAttribution

parser = argparse.ArgumentParser(description="Explain generated text.")
parser.add_argument("--model", help="a causal language model: a folder or a hub id")
parser.add_argument("--prompt", help="what it goes on from")
parser.add_argument("--smoke", action="store_true", help="as without: it takes seconds")
options = parser.parse_args()

if options.model is None:
    model, tokenizer = make_tiny_decoder()
else:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(options.model)

# %%
# A prompt and its answer
# -----------------------
# The little decoder replies in the mood of the review, and knows when the visit was. So "glad"
# should come from "lovely", and the month from the month.

prompt = options.prompt or REPLY.format(text="We came in May. The garden was lovely.")
inp = TextTokenInput(prompt, tokenizer)
ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
written = model.generate(ids, max_new_tokens=20, do_sample=False)[0, ids.shape[1] :]
answer = tokenizer.decode(written, skip_special_tokens=True)
print(answer)

llm = LLMAMLAttribution(AMLAttribution(model), tokenizer)
result = llm.attribute(inp, target=answer)

# %%
# Left out, the target is what the model writes. ``token_attr`` has a row for each token of the
# answer, ``seq_attr`` the scores for the whole of it. Captum's result draws them. Scores are
# contributions to log-probabilities: words that stand in every reply ("are", "about") need nothing
# in particular, and have scores near 0.

figure, axis = result.plot_token_attr()
figure.set_size_inches(13, 5)
axis.set_xlabel("AML: which tokens of the prompt (top) each written token (left) needs")
plt.show()

# %%
# Beside Captum
# -------------
# The same call with Captum's class and one of its perturbation methods. Its scores are changes of
# log-probabilities, too, when a single token is taken away.

captum = LLMAttribution(FeatureAblation(model), tokenizer)
ablated = captum.attribute(inp, target=answer)

for name, each in (("AML", result), ("Feature ablation", ablated)):
    best = each.token_attr.argmax(dim=1).tolist()
    needs = [
        f"{token} needs {each.input_tokens[index]}"
        for token, index in zip(each.output_tokens, best, strict=True)
        if token in ("glad", "May")
    ]
    print(f"{name}: {', '.join(needs)}")

# %%
# A template
# ----------
# With ``TextTemplateInput`` only the values are features; what stands between them is never
# masked. A value may be of any length and has one score.

template = TextTemplateInput(
    REPLY.format(text="We came in {}. The {} was {}."), values=["May", "garden", "lovely"]
)
by_value = llm.attribute(template, target=answer)
figure, axis = by_value.plot_token_attr()
axis.set_xlabel("AML: which values each written token needs")
plt.show()

# %%
# Another answer
# --------------
# A target that the model would not write can be explained as well: what in this prompt supports
# it, and what speaks against it? The month supports the month, and "lovely" is against the mood.

other = llm.attribute(template, target=" We are sorry about your visit in May.")
for token, row in zip(other.output_tokens, other.token_attr.tolist(), strict=True):
    if token in ("sorry", "May"):
        scores = zip(other.input_tokens, row, strict=True)
        print(token, {value: round(score, 2) for value, score in scores})
