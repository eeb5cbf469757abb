"""train_streams - fit the weights of relaywarden/content/weights.py to labelled messages, and write them there.

    bench/train_streams.py [--write] [--data /work/shared/data/templates]

Logistic regression with a Gaussian prior around each row's guess, its sign kept (projected gradient, from the guess; no draw,
so the same data give the same weights).  Trained on the templates, each rendered three times, and on bench/messages/tuning.txt;
never on apart.txt.  Without --write the weights are printed only.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from math import exp
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

from relaywarden.content import features, text  # noqa: E402
from relaywarden.content.weights import BIAS, WEIGHTS  # noqa: E402
from templates_render import DATA, Sample, templates, written  # noqa: E402

TABLE = ROOT / "relaywarden/content/weights.py"
RENDERINGS = (1, 2, 3)
WRITTEN_COUNTS = 2.0  # a written text is closer to the field than a template of blind text
STIFFNESS = 10.0  # how many messages' worth the guess is
_STEPS, _RATE = 400, 0.5
_ROW = re.compile(r'^    "(\w+)": Weight\((-?[\d.]+), -?[\d.]+,', re.MULTILINE)
Row = tuple[dict[str, float], float, float]  # features, 1 for bulk, its weight


def measured(sample: Sample) -> dict[str, float]:
    """The features of one message."""
    headers, body = text.split(sample.message)
    return features.measure(headers, text.look(headers, body)).values


def rows(folder: Path) -> list[tuple[str, Row]]:
    """All training messages with their family."""
    found = [(sample, 1 / len(RENDERINGS)) for seed in RENDERINGS for sample in templates(folder, seed)]
    for dressed in (False, True):
        found += [(sample, WRITTEN_COUNTS / 2) for sample in written(ROOT / "bench/messages/tuning.txt", dressed=dressed)]
    return [(sample.family, (measured(sample), float(sample.stream == "bulk"), weight)) for sample, weight in found]


def fit(data: Sequence[Row]) -> dict[str, float]:
    """The weights that fit the data best, near the guesses; the bias under `""`."""
    guess = {"": BIAS.guess, **{name: weight.guess for name, weight in WEIGHTS.items()}}
    worth = dict(guess)
    total = sum(weight for _, _, weight in data)
    for _ in range(_STEPS):
        slope = {name: STIFFNESS * (worth[name] - guess[name]) for name in worth}
        for values, bulk, weight in data:
            odds = worth[""] + sum(value * worth[name] for name, value in values.items())
            error = weight * (1 / (1 + exp(-odds)) - bulk)
            slope[""] += error
            for name, value in values.items():
                slope[name] += error * value
        for name, value in list(worth.items()):
            moved = value - _RATE * slope[name] / (total / 8 + STIFFNESS)
            worth[name] = moved if name == "" else max(moved, 0.0) if guess[name] > 0 else min(moved, 0.0)
    return worth


def main() -> int:
    """Fit, print, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    worth = fit([row for _, row in rows(options.data)])
    for name, value in worth.items():
        print(f"{name or 'bias':20}{(WEIGHTS[name] if name else BIAS).guess:7.2f}{value:7.2f}")
    if options.write:
        table = _ROW.sub(lambda row: f'    "{row[1]}": Weight({row[2]}, {worth[row[1]]:.2f},', TABLE.read_text())
        TABLE.write_text(
            re.sub(
                r"^BIAS = Weight\((-?[\d.]+), -?[\d.]+,",
                lambda row: f"BIAS = Weight({row[1]}, {worth['']:.2f},",
                table,
                flags=re.MULTILINE,
            )
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
