"""Draw the picture of the README: three methods on fifteen sentences, with nothing prepared.

Integrated Gradients, LIME and the default call of AML explain what a sequence classifier predicts,
and a browser takes a picture of the page that the package makes of it. The highest two tokens of
each sentence under the default call are printed::

    python examples/first_call_picture.py --model FOLDER_OR_HUB_ID --output picture.png

It needs Playwright and Chromium; with ``--output page.html`` it writes the page alone. Without
``--model`` it explains the small classifier of reviews that comes with the package, which was
trained on other sentences than these and mostly guesses.
"""

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
