"""weights - what each feature is worth, in log-odds of bulk.  A table; the column `worth` is written by bench/train_streams.py.

`guess` is a person's judgement before any data: its sign is kept, and training moves `worth` away from it only as far as
the data insist (a Gaussian prior around the guess).  So a feature that the data lack keeps what a person gave it.
"""

from __future__ import annotations

from typing import NamedTuple


class Weight(NamedTuple):
    """One row: the guess, the trained value, and what the feature says, for people."""

    guess: float
    worth: float
    text: str


BIAS = Weight(0.0, -0.18, "")
WEIGHTS: dict[str, Weight] = {
    "promo": Weight(1.0, 0.99, "words of promotion"),
    "cta": Weight(0.8, 0.67, "calls to action"),
    "news": Weight(0.9, 1.03, "words of newsletters and events"),
    "engage": Weight(0.9, 0.91, "survey, birthday, cart or win-back"),
    "product": Weight(0.7, 0.67, "product news or upselling"),
    "footer": Weight(0.7, 0.60, "a mailing's footer"),
    "order": Weight(-0.9, -1.00, "words of an order or shipment"),
    "payment": Weight(-0.9, -1.12, "words of a payment"),
    "account": Weight(-0.9, -1.16, "words of an account, code or password"),
    "booking": Weight(-0.8, -0.82, "words of a booking or appointment"),
    "notice": Weight(-0.8, -0.89, "words of a case, contract or incident"),
    "person": Weight(-0.9, -1.10, "what one person did for another"),
    "subject_bulk": Weight(1.2, 1.53, "subject of a mailing"),
    "subject_business": Weight(-1.4, -2.10, "subject of business with one person"),
    "subject_percent": Weight(1.0, 1.01, "per cent in the subject"),
    "subject_emoji": Weight(0.8, 0.70, "emoji in the subject"),
    "subject_shouts": Weight(0.4, 0.22, "exclamation in the subject"),
    "subject_reference": Weight(-1.0, -1.13, "a number or code in the subject"),
    "subject_list": Weight(0.5, 0.51, "a number of an issue or list in the subject"),
    "subject_code": Weight(-3.0, -3.00, "a code of six or eight digits in the subject"),
    "subject_yours": Weight(-0.3, -0.65, "something of the reader's in the subject"),
    "list_unsubscribe": Weight(0.3, 0.07, "List-Unsubscribe"),
    "one_click": Weight(0.2, 0.13, "List-Unsubscribe-Post"),
    "list_id": Weight(0.8, 0.85, "List-Id"),
    "precedence": Weight(1.0, 1.03, "Precedence: bulk or list"),
    "automatic": Weight(-0.6, -0.90, "Auto-Submitted"),
    "reply": Weight(-1.2, -1.20, "answers a message"),
    "campaign_tool": Weight(1.0, 1.14, "headers of a mailing tool"),
    "bulk_sender": Weight(0.6, 0.70, "sender's name is a mailing's"),
    "business_sender": Weight(-0.7, -0.69, "sender's name is an office"),
    "hidden_to": Weight(0.8, 0.80, "recipient not in To"),
    "recipients": Weight(1.5, 1.50, "many recipients"),
    "greeting": Weight(-0.2, -0.24, "greets"),
    "yours": Weight(-0.4, -0.45, "what happened to something of the reader's"),
    "long": Weight(0.3, 0.29, "long text"),
    "short": Weight(-0.2, -0.27, "short text"),
    "percents": Weight(0.4, 0.37, "per cent"),
    "prices": Weight(0.1, 0.00, "prices"),
    "prices_alone": Weight(0.6, 0.66, "prices without payment or order"),
    "reference": Weight(-0.5, -0.71, "a reference number"),
    "code": Weight(-0.7, -0.80, "a code of six or eight digits"),
    "exclaims": Weight(0.3, 0.02, "exclamations"),
    "emoji": Weight(0.4, 0.39, "emoji"),
    "images": Weight(0.3, 0.08, "pictures"),
    "pictures_for_text": Weight(0.3, 0.16, "more pictures than text"),
    "links": Weight(0.4, 0.16, "many links"),
    "hosts": Weight(0.2, 0.20, "links to many hosts"),
    "social": Weight(0.3, 0.30, "links to social networks"),
    "pixel": Weight(0.2, 0.14, "a tracking pixel"),
    "document": Weight(-1.0, -1.00, "a document attached"),
    "no_way_out": Weight(-0.8, -0.77, "no way to unsubscribe"),
    "balance": Weight(1.5, 1.83, "bulk against business words"),
    "no_bulk_words": Weight(-0.6, -0.67, "no words of a mailing"),
    "footer_alone": Weight(1.0, 1.23, "a mailing's footer under no business"),
    "mailing": Weight(0.6, 0.70, "a mailing's words and footer"),
    "no_business_words": Weight(0.4, 0.59, "no words of business with one person"),
}
