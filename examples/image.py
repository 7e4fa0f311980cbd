"""
Explain an image, with superpixels
==================================

A ``feature_mask`` turns regions of an image into the units that are kept or removed. The model is a
small convolutional network for scikit-learn's handwritten digits (8 x 8 pixels), the regions are
superpixels: pixels that are neighbours and alike.

Run it as a script::

    python examples/image.py --regions 16
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from torch import nn

from captum_aml import AMLAttribution, LAAttribution

parser = argparse.ArgumentParser(description="Explain images by regions.")
parser.add_argument("--regions", type=int, default=16, help="superpixels of an image")
parser.add_argument("--smoke", action="store_true", help="fewer steps, images and epochs")
options = parser.parse_args()

torch.manual_seed(0)

# %%
# A model to explain
# ------------------

digits = load_digits()
images = torch.tensor(digits.images / 16).float().unsqueeze(1)  # (N, 1, 8, 8), ink is 1
labels = torch.tensor(digits.target)
train, test = images[:1500], images[1500:]

model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1),
    nn.ReLU(),
    nn.Conv2d(16, 32, 3, padding=1, stride=2),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(32 * 16, 10),
)
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for _ in range(8 if options.smoke else 15):
    for part in torch.randperm(1500).split(50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(train[part]), labels[part]).backward()
        optimizer.step()
model.requires_grad_(False).eval()
accuracy = (model(test).argmax(dim=-1) == labels[1500:]).float().mean()
print(f"accuracy on {len(test)} held-out images: {accuracy:.3f}")

# %%
# Superpixels
# -----------
# Clusters of (row, column, ink): what SLIC does. The feature mask has the shape of the images and
# holds the number of each pixel's region, counted within each image.


def superpixels(image, n_regions):
    """Region numbers (1, 8, 8) of an image (1, 8, 8)."""
    rows, columns = np.indices(image.shape[1:])
    points = np.stack([rows.ravel(), columns.ravel(), 4 * image.numpy().ravel()], axis=1)
    regions = KMeans(n_regions, n_init=2, random_state=0).fit_predict(points)
    return torch.tensor(regions).reshape(image.shape).long()


chosen = test[[0, 3, 5, 9, 12, 21]]
regions = torch.stack([superpixels(image, options.regions) for image in chosen])

# %%
# The baseline is a choice
# ------------------------
# Against a baseline of 0 (no ink) only ink can be removed: a pixel that is empty equals its
# baseline, cannot be masked, and scores 0 unless its region has ink. Against the mean image, the
# absence of ink is information too: that the middle of a 0 is empty is what tells it from an 8.
#
# ``multiply_by_inputs=False`` asks for the mask instead of contributions, and ``tune="mask"``
# descends the objective itself, starting from the averaged mask gradient.

mean_image = train.mean(dim=0, keepdim=True)
n_steps = 60 if options.smoke else 100
mask_of = dict(multiply_by_inputs=False, tune="mask")
aml = AMLAttribution(model, **mask_of)
explanations = {
    "AML, baseline: no ink": aml.attribute(
        chosen, baselines=0.0, feature_mask=regions, n_steps=n_steps
    ),
    "AML, baseline: mean image": aml.attribute(
        chosen, baselines=mean_image, feature_mask=regions, n_steps=n_steps
    ),
    "AML, single pixels, mean image": aml.attribute(chosen, baselines=mean_image, n_steps=n_steps),
    "LA, baseline: mean image": LAAttribution(model, **mask_of).attribute(
        chosen, baselines=mean_image, feature_mask=regions, n_steps=n_steps
    ),
}

probabilities = model(chosen).softmax(dim=-1)
predicted = probabilities.argmax(dim=-1)

figure, axes = plt.subplots(
    len(chosen), 1 + len(explanations), figsize=(11, 1.9 * len(chosen)), layout="constrained"
)
for row, image in enumerate(chosen):
    axes[row, 0].imshow(image[0].numpy(), cmap="gray_r", vmin=0, vmax=1)
    axes[row, 0].set_title(f"{predicted[row]}, p = {probabilities[row].max():.2f}", fontsize=9)
    for column, (name, scores) in enumerate(explanations.items(), start=1):
        shown = axes[row, column].imshow(scores[row, 0].numpy(), cmap="Blues", vmin=0, vmax=1)
        axes[row, column].contour(image[0].numpy(), levels=[0.5], colors="#d9480f", linewidths=1)
        if row == 0:
            axes[row, column].set_title(name.replace(", ", ",\n", 1), fontsize=9)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
figure.colorbar(shown, ax=axes, label="score", shrink=0.4)
figure.suptitle("The predicted digit, and the regions that decide it (digit outlined)")
plt.show()

# %%
# What the masks promise
# ----------------------
# What AML's mask keeps should preserve the prediction, what it leaves out should not support it.
# Blend each image with its baseline by the mask, and by its complement.

print(f"{'':32} {'kept':>6} {'complement':>11} {'size':>6}")
for name, mask in explanations.items():
    baseline = torch.zeros(1) if "no ink" in name else mean_image
    kept = model(mask * chosen + (1 - mask) * baseline)
    complement = model((1 - mask) * chosen + mask * baseline)
    values = [
        outputs.softmax(dim=-1).gather(1, predicted[:, None]).mean()
        for outputs in (kept, complement)
    ]
    print(f"{name:32} {values[0]:6.3f} {values[1]:11.3f} {mask.mean():6.3f}")

# %%
# LA asks for the second only: its mask marks the least whose removal changes the prediction, so
# that it is smaller, and what it marks need not be sufficient.
