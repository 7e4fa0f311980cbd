"""Draw the picture of the README: three methods explain fifteen sentences, with nothing fitted.

Integrated Gradients, LIME and the default call of AML explain what a sequence classifier predicts,
a browser photographs the page that the package makes of it, and each sentence's two highest tokens
under the default call are printed::

    python examples/first_call_picture.py --model FOLDER_OR_HUB_ID --output picture.png

It needs Playwright and Chromium; a name that ends in .html gets the page itself. Without
``--model`` it explains the small classifier of reviews that comes with the package, which knows
few of these words.
"""

import argparse
import io
import shutil
from dataclasses import replace
from pathlib import Path

from captum_aml.reviews import reviews_classifier_path
from captum_aml.text import TextClassifier, TextExplainer
from captum_aml.text.explanation import text_card
from captum_aml.visualization import page

#: Written for this picture before any of them was explained; none was exchanged for how it came
#: out.
SENTENCES = (
    "A warm, funny and beautifully acted film.",
    "I did not enjoy a single minute of it.",
    "The plot is thin, but the two leads are wonderful together.",
    "Lovely photography, yet the story never comes alive.",
    "Oh great, another two hours of superheroes shouting at each other.",
    "It isn't bad at all; in fact, I would happily watch it again.",
    "Dull, dull, dull!",
    "Marta Lindqvist gives the performance of her career, and Tom Adeyemi's quiet direction lets "
    "her shine.",
    "Somewhere between the third car chase and the fifth flashback, I stopped caring who had "
    "killed whom.",
    "Who knew that a documentary about bees could be this gripping?",
    "The jokes fall flat, the music is far too loud, and the ending makes no sense whatsoever.",
    "Not the masterpiece we were promised, though it is charming enough for a rainy Sunday "
    "afternoon.",
    "If you have trouble sleeping, this is the film for you.",
    "My children laughed from start to finish - and, to my surprise, so did I.",
    "For all its famous names and expensive costumes, 'The Winter Queen' is a tedious, lifeless "
    "affair.",
)
#: Each column's heading, its method and the number of steps or samples.
COLUMNS = {
    "Integrated Gradients, 50 steps": ("integrated-gradients", 50),
    "LIME, 200 samples": ("lime", 200),
    "AML, 16 masks and 18 subsets": ("aml", None),
}
WIDTH = 1080
#: Rows of three columns, with the names of the methods above the first, on a light ground.
STYLE = """
body { max-width: none; padding: 1rem; }
h1, .legend .scale:last-child { display: none; }
.subtitle { font-size: .85rem; }
.legend { margin: .4rem 0 .9rem; font-size: .78rem; line-height: 1.4; }
.scale span:first-child { flex: none; }
article {
  display: grid; grid-template-columns: 7.4rem repeat(3, 1fr); gap: 0 1.1rem;
  align-items: last baseline; border-width: 1px 0 0; border-radius: 0; padding: .35rem .4rem;
  margin: 0;
}
.head { gap: .5rem; font-size: .8rem; }
.row, .row + .row { display: block; margin: 0; padding: 0; border: 0; }
.method { margin-bottom: .4rem; }
article + article { align-items: first baseline; }
article + article .side { display: none; }
.text { font-size: .86rem; line-height: 1.5; }
"""

parser = argparse.ArgumentParser(description="Draw three methods' explanations of sentences.")
parser.add_argument("--model", help="a sequence classifier of reviews: a folder or a hub id")
parser.add_argument("--output", type=Path, required=True, help="a picture, .png, or a page, .html")
parser.add_argument("--smoke", action="store_true", help="three sentences only")
options = parser.parse_args()

sentences = SENTENCES[:3] if options.smoke else SENTENCES

text_model = TextClassifier.from_pretrained(options.model or reviews_classifier_path())
explained = [
    TextExplainer(text_model, method=method, n_steps=n_steps)(sentences)
    for method, n_steps in COLUMNS.values()
]
for explanation in explained[-1]:
    highest = ", ".join(f"{token} {score:+.2f}" for token, score in explanation.top(2))
    print(
        f"{explanation.predicted_label} {explanation.probability:.3f}  {highest}  "
        f"| {explanation.text}"
    )

cards = []
for of_text in zip(*explained, strict=True):
    card = text_card(of_text)
    rows = [replace(row, method=heading) for row, heading in zip(card.rows, COLUMNS, strict=True)]
    cards.append(replace(card, rows=rows))
html = "".join(
    page(
        cards,
        title="Three methods on fifteen sentences",
        subtitle="Each row explains the class that the model predicts, on the left with its "
        "probability.",
    )
)
if options.output.suffix == ".html":
    options.output.write_text(html, encoding="utf-8")
else:
    from PIL import Image
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        tab = browser.new_page(
            viewport={"width": WIDTH, "height": 100}, device_scale_factor=1.5, color_scheme="light"
        )
        tab.set_content(html)
        tab.add_style_tag(content=STYLE)
        picture = tab.screenshot(full_page=True)
        browser.close()
    # With a palette the file is a third as large.
    drawn = Image.open(io.BytesIO(picture)).convert("RGB")
    drawn = drawn.quantize(method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    drawn.save(options.output, optimize=True)
