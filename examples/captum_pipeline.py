"""
Swap Integrated Gradients for AML in a Captum pipeline
======================================================

Code that explains a model with one of Captum's attribution classes needs another class name, and
nothing else, to explain it with AML. Here one pipeline runs twice: once with Layer Integrated
Gradients, once with Layer AML. What Captum puts around an attribution class (:class:`NoiseTunnel
<captum.attr.NoiseTunnel>`, its metrics, its visualization) takes AML as well.

Run it as a script with a sequence classifier of your own::

    python examples/captum_pipeline.py --model FOLDER_OR_HUB_ID --text "..." --text "..."

Without ``--model`` it explains the small classifier of reviews that comes with the package, and
needs no network.
"""

import argparse

import matplotlib.pyplot as plt
import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients, NoiseTunnel, visualization
from captum.metrics import infidelity, sensitivity_max

from captum_aml import AMLAttribution, LayerAMLAttribution
from captum_aml.metrics import comprehensiveness, sufficiency
from captum_aml.reviews import load_reviews_classifier

parser = argparse.ArgumentParser(
    description="Explain texts with Integrated Gradients and with AML."
)
parser.add_argument("--model", help="a sequence classifier: a folder or a hub id")
parser.add_argument("--text", action="append", help="a text to explain; may be repeated")
parser.add_argument("--smoke", action="store_true", help="fewer samples")
options = parser.parse_args()

torch.manual_seed(0)

# %%
# The pipeline as it was
# ----------------------
# A forward function takes token ids and returns logits. The reference ids say what an input without
# information looks like: every word is [MASK], special tokens and padding stay as they are.

if options.model is None:
    model, tokenizer = load_reviews_classifier()
else:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(
        options.model, dtype=torch.float32
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(options.model)

texts = options.text or [
    "We walked there in the rain. The garden was lovely.",
    "We stayed for two nights. The room was not clean.",
]
encoded = tokenizer(texts, padding=True, return_special_tokens_mask=True, return_tensors="pt")
special = encoded.pop("special_tokens_mask").bool()
ids, attention_mask = encoded["input_ids"], encoded["attention_mask"]
ref_ids = torch.where(special, ids, tokenizer.mask_token_id)


def forward(ids, attention_mask):
    """Logits (N, C) of token ids (N, L)."""
    return model(ids, attention_mask=attention_mask).logits


with torch.no_grad():
    probabilities = forward(ids, attention_mask).softmax(dim=-1)
predicted = probabilities.argmax(dim=-1)

# %%
# The same call for both
# ----------------------
# ``call`` goes to either class as it is. ``n_steps`` counts the same in both: forward and backward
# passes for each text, 50 for Integrated Gradients unless it says otherwise, and 16 for AML, which
# takes 18 forward ones besides.

layer = model.get_input_embeddings()
call = dict(baselines=ref_ids, target=predicted, additional_forward_args=(attention_mask,))

scores = {}
for name, attribution in (
    ("Integrated Gradients", LayerIntegratedGradients),
    ("AML", LayerAMLAttribution),
):
    attributions = attribution(forward, layer).attribute(ids, **call)
    scores[name] = attributions.sum(dim=-1).detach()  # one score for each token

# %%
# Both divide the difference between the output and that of the baseline among the tokens, so that
# scores may be of any size and sign, and are 0 for what equals its baseline.

difference = forward(ids, attention_mask) - forward(ref_ids, attention_mask)
difference = difference.detach().gather(1, predicted[:, None])[:, 0]
assert torch.allclose(scores["AML"].sum(dim=-1), difference, atol=1e-3)

labels = model.config.id2label
figure, axes = plt.subplots(
    len(texts), len(scores), figsize=(9, 3.2 * len(texts)), layout="constrained"
)
for row in range(len(texts)):
    shown = ~special[row]
    tokens = tokenizer.convert_ids_to_tokens(ids[row][shown])
    for axis, (name, values) in zip(axes[row], scores.items(), strict=True):
        axis.barh(range(len(tokens)), values[row][shown].tolist(), color="#3b76d6")
        axis.set_yticks(range(len(tokens)), tokens)
        axis.invert_yaxis()
        axis.axvline(0, color="0.3", linewidth=0.8)
        axis.set_title(f"{name}: {labels[predicted[row].item()]}")
        axis.spines[["top", "right"]].set_visible(False)
figure.suptitle("One call, two attribution classes")
plt.show()

# %%
# Which of the two is more faithful
# ---------------------------------
# Take away the fifth of the tokens that a method ranks highest, and see how much of the prediction
# goes with them (comprehensiveness, higher is better); keep only them, and see how much of it is
# lost (sufficiency, lower is better). Two texts show how the calls look; they prove nothing about
# the methods. For that, see :doc:`/benchmarking`.

for name, values in scores.items():
    comp = comprehensiveness(forward, ids, values, **call).mean()
    suff = sufficiency(forward, ids, values, **call).mean()
    print(f"{name:22} comprehensiveness {comp:+.3f}   sufficiency {suff:+.3f}")

# %%
# Noise tunnel
# ------------
# ``NoiseTunnel`` adds noise to floating-point inputs, so here the inputs are embeddings instead of
# ids. ``IntegratedGradients`` and ``AMLAttribution`` attribute to a forward function's inputs.

embeddings, ref_embeddings = layer(ids).detach(), layer(ref_ids).detach()


def forward_embeddings(embeddings, attention_mask):
    """Logits (N, C) of embeddings (N, L, D)."""
    return model(inputs_embeds=embeddings, attention_mask=attention_mask).logits


at_embeddings = dict(
    baselines=ref_embeddings, target=predicted, additional_forward_args=(attention_mask,)
)
samples = dict(nt_samples=4, nt_type="smoothgrad", stdevs=0.02)

for attribution in (IntegratedGradients, AMLAttribution):
    tunnel = NoiseTunnel(attribution(forward_embeddings))
    smooth = tunnel.attribute(embeddings, **samples, **at_embeddings).sum(dim=-1)
    highest = tokenizer.convert_ids_to_tokens(ids[0])[smooth[0].argmax()]
    print(f"{attribution.__name__:20} highest of the first text: {highest}")

# %%
# Captum's metrics
# ----------------
# Infidelity compares what the scores say of a perturbation with what the model does under it;
# maximal sensitivity says how far the scores move when the input moves a little. The scores of both
# are in the model's unit, so that their infidelity can be compared.


def swap_for_baseline(inputs, baselines):
    """Replaces a random tenth of the tokens; returns what was taken away, and the rest."""
    taken = (torch.rand(inputs.shape[:2]) < 0.1).unsqueeze(-1)
    return (inputs - baselines) * taken, torch.where(taken, baselines, inputs)


def per_channel(attributions, inputs, baselines):
    """Scores of tokens as densities, which infidelity multiplies with what was taken away."""
    difference = inputs - baselines
    total = attributions.sum(dim=-1, keepdim=True)
    norm = difference.square().sum(dim=-1, keepdim=True)
    return torch.where(norm > 0, total * difference / norm.clamp(min=1e-12), 0.0)


n_perturbations = 8 if options.smoke else 50
for explainer in (
    IntegratedGradients(forward_embeddings),
    AMLAttribution(forward_embeddings),
):
    attributions = explainer.attribute(embeddings, **at_embeddings)
    error = infidelity(
        forward_embeddings,
        swap_for_baseline,
        embeddings,
        per_channel(attributions, embeddings, ref_embeddings),
        **at_embeddings,
        n_perturb_samples=n_perturbations,
    )
    moved = sensitivity_max(explainer.attribute, embeddings, n_perturb_samples=2, **at_embeddings)
    print(
        f"{type(explainer).__name__:20} infidelity {error.mean():.3f}   "
        f"sensitivity {moved.mean():.3f}"
    )

# %%
# Captum's visualization
# ----------------------
# The record that Captum's notebooks make of a text, from either method's scores.

records = []
for name, values in scores.items():
    for row in range(len(texts)):
        shown, index = ~special[row], predicted[row].item()
        shares = values[row][shown] / values[row].abs().max()
        records.append(
            visualization.VisualizationDataRecord(
                word_attributions=shares,
                pred_prob=probabilities[row, index].item(),
                pred_class=labels[index],
                true_class="unknown",
                attr_class=f"{labels[index]}, {name}",
                attr_score=values[row].sum().item(),
                raw_input_ids=tokenizer.convert_ids_to_tokens(ids[row][shown]),
                convergence_score=0.0,
            )
        )
visualization.visualize_text(records)
