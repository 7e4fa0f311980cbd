"""
Explain a vision transformer, by patches
========================================

A vision transformer cuts an image into patches and reads them as a text model reads tokens. A
``feature_mask`` makes each patch one unit of the pixels; the patches' embeddings, where the
model itself has one position for each, are a layer like any other.

Run it as a script with a model and an image of your own::

    python examples/vision_transformer.py --model FOLDER_OR_HUB_ID --image FILE

Without ``--model`` it trains a small one, in seconds and without a network, on scikit-learn's
handwritten digits (8 x 8 pixels, patches of 2 x 2).
"""

import argparse

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from captum_aml import AMLAttribution, LayerAMLAttribution

parser = argparse.ArgumentParser(description="Explain images by a vision transformer's patches.")
parser.add_argument("--model", help="a vision transformer that classifies: a folder or a hub id")
parser.add_argument("--image", help="an image for it")
parser.add_argument("--smoke", action="store_true", help="fewer epochs")
options = parser.parse_args()
if (options.model is None) != (options.image is None):
    parser.error("--model and --image go together")

torch.manual_seed(0)

# %%
# A model to explain
# ------------------


def digits_and_model():
    """Held-out digits (N, 1, 8, 8), ink is 1, and a vision transformer that tells them apart."""
    digits = load_digits()
    images = torch.tensor(digits.images / 16).float().unsqueeze(1)
    labels = torch.tensor(digits.target)
    config = ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        initializer_range=0.2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=10,
        id2label={number: str(number) for number in range(10)},
    )
    model = ViTForImageClassification(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    epochs = 8 if options.smoke else 25
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=30 * epochs)
    for _ in range(epochs):
        for part in torch.randperm(1500).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[part]).logits, labels[part]).backward()
            optimizer.step()
            schedule.step()
    model.requires_grad_(False).eval()
    accuracy = (model(images[1500:]).logits.argmax(dim=-1) == labels[1500:]).float().mean()
    print(f"accuracy on {len(images) - 1500} held-out images: {accuracy:.3f}")
    return images[1500:], model


if options.model is None:
    held_out, model = digits_and_model()
    images = held_out[[0, 3, 5, 9, 12, 21]]
    # No ink. The mean digit would make missing ink count, too; see the example of superpixels.
    baseline = torch.zeros(1, 1, 8, 8)
else:
    from PIL import Image

    model = AutoModelForImageClassification.from_pretrained(options.model).eval()
    model.requires_grad_(False)
    processor = AutoImageProcessor.from_pretrained(options.model)
    with Image.open(options.image) as picture:
        images = processor(picture.convert("RGB"), return_tensors="pt")["pixel_values"]
    # The image's own mean colour.
    baseline = images.mean(dim=(2, 3), keepdim=True).expand_as(images)


def logits(pixels):
    """The forward function: images (N, C, H, W) to logits (N, classes)."""
    return model(pixels).logits


# %%
# Patches of pixels
# -----------------
# The feature mask has the shape of an image and holds the number of each pixel's patch. What an
# attribution then gives each pixel is an equal share of its patch's contribution.

size = model.config.patch_size
height, width = (length // size for length in images.shape[-2:])
numbers = torch.arange(height * width).reshape(height, width)
patches = numbers.repeat_interleave(size, dim=0).repeat_interleave(size, dim=1)
feature_mask = patches.expand(1, images.shape[1], -1, -1)

aml = AMLAttribution(logits)
call = dict(baselines=baseline, feature_mask=feature_mask)
pixels, delta = aml.attribute(images, **call, return_convergence_delta=True)


def by_patch(scores):
    """Sums (N, rows, columns) over the pixels of each patch of scores (N, C, H, W)."""
    return scores.sum(dim=1).unflatten(1, (height, size)).unflatten(3, (width, size)).sum((2, 4))


contributions = by_patch(pixels)
predicted = logits(images).argmax(dim=-1)

# %%
# Contributions are complete: those of all patches sum to the difference that the image makes to
# the logit of its class, against the baseline. ``delta`` is what is missing.

difference = (logits(images) - logits(baseline)).gather(1, predicted[:, None])[:, 0]
for row, total in enumerate(contributions.sum(dim=(1, 2))):
    print(f"{model.config.id2label[predicted[row].item()]:12} {total:.3f} of {difference[row]:.3f}")
print(f"missing: at most {delta.abs().max():.0e}")

# %%
# The patches' embeddings
# -----------------------
# The model has one position for each patch, so that a layer does without a feature mask. The right
# one is that which embeds patches, before they meet: it is linear, blended embeddings are those of
# blended pixels, and both explanations agree. After a block of attention a position is no longer
# its patch alone.

embedding = model.base_model.embeddings.patch_embeddings
by_layer = LayerAMLAttribution(logits, embedding).attribute(images, baselines=baseline)
positions = by_layer.sum(dim=-1).reshape(-1, height, width)
print(f"pixels and embeddings differ by at most {(positions - contributions).abs().max():.0e}")

# %%
# Why this digit and not that one?
# --------------------------------
# With a ``foil`` a contrast is explained: what the image does to the difference of both logits,
# which is the logarithm of the odds of the class against its foil. What speaks for the foil is
# below 0.

foils = logits(images).topk(2, dim=-1).indices[:, 1]
contrast = by_patch(aml.attribute(images, **call, target=predicted, foil=foils))

# %%
# The picture
# -----------
# Blue patches speak for the class, red ones against it.


def names(number):
    """The name of a class, cut to what fits above a picture."""
    return str(model.config.id2label[int(number)]).split(",")[0]


figure, axes = plt.subplots(
    len(images), 3, figsize=(6.4, 2.1 * len(images)), squeeze=False, layout="constrained"
)
for row, image in enumerate(images):
    shown = image.permute(1, 2, 0).numpy()
    shown = (shown - shown.min()) / (shown.max() - shown.min())
    axes[row, 0].imshow(1 - shown if shown.shape[2] == 1 else shown, cmap="gray")
    axes[row, 0].set_title(names(predicted[row]), fontsize=9)
    for axis, scores, title in (
        (axes[row, 1], contributions[row], f"why {names(predicted[row])}"),
        (axes[row, 2], contrast[row], f"and not {names(foils[row])}"),
    ):
        limit = scores.abs().max()
        axis.imshow(scores.numpy(), cmap="RdBu", vmin=-limit, vmax=limit)
        axis.set_title(title, fontsize=9)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
plt.show()

# %%
# Do the patches count?
# ---------------------
# Remove each image's four highest patches, or four by chance, and see what is left of the
# probability of its class.


def probability_without(scores, k=4):
    """Mean probability of the class without the k highest patches of scores (N, rows, columns)."""
    highest = torch.zeros_like(scores).flatten(1)
    highest = highest.scatter(1, scores.flatten(1).topk(k).indices, 1.0).bool()
    removed = highest[:, patches].unsqueeze(1)
    left = logits(torch.where(removed, baseline, images)).softmax(dim=-1)
    return left.gather(1, predicted[:, None]).mean().item()


whole = logits(images).softmax(dim=-1).gather(1, predicted[:, None]).mean()
print(f"nothing removed    {whole:.3f}")
print(f"highest patches    {probability_without(contributions):.3f}")
print(f"patches by chance  {probability_without(torch.rand_like(contributions)):.3f}")
