"""
Explain a table, with columns in groups
=======================================

AML explains any differentiable forward function, not only language models. Here it is a small
network that tells malignant from benign tumours by 30 columns (scikit-learn's breast cancer data).
The columns are 10 measurements, each given as a mean, a standard error and a worst value: a
``feature_mask`` makes each measurement one unit. A second network gives a value instead of a class.

Run it as a script::

    python examples/tabular.py --rows 4
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
import torch
from captum.attr import IntegratedGradients
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.model_selection import train_test_split
from torch import nn

from captum_aml import AMLAttribution

parser = argparse.ArgumentParser(description="Explain rows of a table.")
parser.add_argument("--rows", type=int, default=3, help="how many held-out rows to show")
parser.add_argument("--smoke", action="store_true", help="fewer epochs")
options = parser.parse_args()

torch.manual_seed(0)

# %%
# A model to explain
# ------------------
# Two classes, 30 standardized columns, a network of one hidden layer.

data = load_breast_cancer()
train, test, train_labels, test_labels = train_test_split(
    data.data, data.target, test_size=0.25, random_state=0, stratify=data.target
)
center, spread = train.mean(axis=0), train.std(axis=0)
train, test = (torch.tensor((part - center) / spread).float() for part in (train, test))
train_labels, test_labels = torch.tensor(train_labels), torch.tensor(test_labels)

model = nn.Sequential(nn.Linear(30, 16), nn.Tanh(), nn.Linear(16, 2))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-3)
for _ in range(100):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(train), train_labels).backward()
    optimizer.step()
model.requires_grad_(False).eval()
accuracy = (model(test).argmax(dim=-1) == test_labels).float().mean()
print(f"accuracy on {len(test)} held-out rows: {accuracy:.3f}")

# %%
# The baseline, and the groups
# ----------------------------
# Columns are standardized, so that 0 is the average tumour: a column at its baseline says nothing
# unusual. Columns ``k``, ``k + 10`` and ``k + 20`` are the mean, the error and the worst value of
# measurement ``k``. A feature mask holds the number of each column's group.

measurements = [name.removeprefix("mean ") for name in data.feature_names[:10]]
feature_mask = torch.arange(30).remainder(10).unsqueeze(0)
call = dict(baselines=0.0, feature_mask=feature_mask)

aml = AMLAttribution(model)
scores = aml.attribute(test, **call)
print(scores.shape)
# The columns of a group share its contribution evenly, and all columns sum to the difference that
# the row makes to the logit of its class.
assert torch.equal(scores[:, :10], scores[:, 20:])

# %%
# Three tumours, and the measurements that decide them
# ----------------------------------------------------
# The explained class is the predicted one, since no target was given. Integrated Gradients scores
# columns; their sums over a group stand beside AML's. What speaks against the class is below 0.

probabilities = model(test).softmax(dim=-1)
predicted = probabilities.argmax(dim=-1)
by_column = IntegratedGradients(model).attribute(test, baselines=0.0, target=predicted)
by_group = by_column.reshape(-1, 3, 10).sum(dim=1)
measured = scores.reshape(-1, 3, 10).sum(dim=1)

rows = range(options.rows)
figure, axes = plt.subplots(
    2, len(rows), figsize=(3.4 * len(rows), 6.2), sharey=True, squeeze=False, layout="constrained"
)
for column, row in enumerate(rows):
    name = data.target_names[predicted[row]]
    for axis, values, method in (
        (axes[0, column], measured[row], "AML"),
        (axes[1, column], by_group[row], "Integrated Gradients"),
    ):
        axis.barh(measurements, values.tolist(), color="#3b76d6")
        axis.axvline(0, color="0.3", linewidth=0.8)
        axis.set_title(f"{name}, p = {probabilities[row].max():.2f}\n{method}", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
axes[0, 0].invert_yaxis()
plt.show()

# %%
# Fit once, then explain in one pass
# ----------------------------------
# So far each row cost sixteen forward and backward passes of the model and eighteen forward ones.
# ``fit`` trains a small masker on the training rows, and then a mask is one pass of that. No labels
# are needed: what is explained is what the model predicts. A batch is what ``attribute`` takes.

fitted = AMLAttribution(model)
batches = [dict(inputs=part, **call) for part in train.split(32)]
fitted.fit(batches, epochs=10 if options.smoke else 30, learning_rate=3e-3)
proposed = fitted.attribute(test, **call)  # a fitted masker: n_steps is 0

# %%
# Are the measurements with the highest scores those that count? Set the three highest of each row
# to their baseline, and see what is left of the probability of the predicted class.


def probability_without(ranked, k=3):
    """Mean probability of the predicted class without the k highest groups (N, 10) of each row."""
    top = torch.zeros_like(ranked, dtype=torch.bool).scatter(1, ranked.topk(k).indices, True)
    left = model(test.masked_fill(top.repeat(1, 3), 0.0)).softmax(dim=-1)
    return left.gather(1, predicted[:, None]).mean().item()


print(f"nothing removed           {probabilities.max(dim=-1).values.mean():.3f}")
for name, ranked in (
    ("AML, averaged gradient", scores[:, :10]),
    ("AML, fitted masker", proposed[:, :10]),
    ("Integrated Gradients", by_group),
    ("random", torch.tensor(np.random.default_rng(0).random((len(test), 10)))),
):
    print(f"{name:25} {probability_without(ranked):.3f}")

# %%
# The network is nearly linear, which is the best case for Integrated Gradients: a column's
# gradient times its difference from the baseline *is* what it contributes, and AML's averaged
# gradient agrees with it. The fitted masker is behind what it learned to imitate, and a pass of it
# is all that an explanation then costs.

# %%
# A value instead of a class
# --------------------------
# A model with one number for each row is explained in the same call, without a target: here how far
# diabetes has progressed after a year, in the units of the data. Contributions are signed, and sum
# to the difference from the average patient's value.

diabetes = load_diabetes()
patients = torch.tensor(diabetes.data / diabetes.data.std(axis=0)).float()
progression = torch.tensor(diabetes.target).float()
mean, deviation = progression.mean(), progression.std()

regressor = nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 1), nn.Flatten(0))
optimizer = torch.optim.Adam(regressor.parameters(), lr=0.02, weight_decay=1e-2)
for _ in range(300):
    optimizer.zero_grad()
    nn.functional.mse_loss(regressor(patients), (progression - mean) / deviation).backward()
    optimizer.step()
regressor.requires_grad_(False).eval()


def predicted_progression(rows):
    """The value (N,) of rows (N, 10)."""
    return mean + deviation * regressor(rows)


shown = patients[:3]
by_value = AMLAttribution(predicted_progression).attribute(shown, baselines=0.0)
average = predicted_progression(torch.zeros(1, 10)).item()
for value, contributions in zip(predicted_progression(shown), by_value, strict=True):
    largest = contributions.abs().topk(3).indices.tolist()
    reasons = ", ".join(f"{diabetes.feature_names[i]} {contributions[i]:+.0f}" for i in largest)
    print(
        f"{value:.0f} instead of {average:.0f}: {reasons}, others "
        f"{contributions.sum() - contributions[largest].sum():+.0f}"
    )
