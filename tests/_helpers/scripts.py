"""Texts in many scripts."""

from __future__ import annotations

#: A few sentences in each of them, with what is special to it: marks, joiners, full stops, no
#: spaces between words.
TEXTS = {
    "latin": "Dr. Noël isn't naïve: 3.5 cafe\u0301s, re\u0301sume\u0301… Well-kept? “Yes!” he.",
    "vietnamese": "Phim này hay lắm. Tôi thích nó!",
    "greek": "Η ταινία είναι καλή. Μου άρεσε!",
    "cyrillic": "Фильм очень хороший. Правда? Да, и ещё лучше!",
    "armenian": "Ֆիլմը շատ լավն է։ Իսկապե՞ս։ Այո։",
    "georgian": "ფილმი ძალიან კარგია. მართლა? დიახ!",
    "hebrew": 'הסרט טוב מאוד. צה"ל? שָׁלוֹם!',
    "arabic": "الفيلم جيد جدًّا. هل هذا صحيح؟ نعم، مُمتاز!",
    "devanagari": "फ़िल्म बहुत अच्छी है। क्या सच में? हाँ, ज़रूर।",
    "tamil": "படம் மிகவும் நன்றாக உள்ளது. உண்மையா? ஆம்!",
    "thai": "หนังเรื่องนี้ดีมาก น้ำตาไหล",
    "khmer": "ខ្សែភាពយន្តនេះល្អណាស់។ មែនទេ?",
    "chinese": "这部电影很好。真的吗？“是的！”他说。",
    "japanese": "この映画はとても良いです。ガタガタ？ハイ！",
    "korean": "이 영화는 아주 좋다. 정말? 그렇다! \u1112\u1161\u11ab",
    "ethiopic": "ፊልሙ በጣም ጥሩ ነው። እውነት? አዎ።",
    "emoji": "👩\u200d👧\u200d👦 👍🏽🎬🎬 🇩🇪🇫🇷 ❤\ufe0f 1\ufe0f\u20e3!",
    "tags": "🏴\U000e0067\U000e0062\U000e007f, x\u00ady",
}
