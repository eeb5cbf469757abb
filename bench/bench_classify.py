"""bench_classify - replies a second of one core: for texts that are all different, and for texts as a log repeats them.

The texts are the project's own set: with a word of its own in each, so that no cache helps; and with changing addresses.
Counted is processor time of this process, so that a busy machine does not matter much.  Exit status 1 where different texts
are slower than TARGET.

    bench/bench_classify.py [--replies 100000]
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "monitor")]

from relaywarden_monitor.classify.classifier import Classifier  # noqa: E402

TARGET = 20_000


def _letters(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, 26)
        text += chr(97 + digit)
    return text or "a"


def rate(classifier: Classifier, texts: list[str]) -> float:
    """Replies a second."""
    begun = time.process_time()
    for text in texts:
        classifier.classify(text)
    return len(texts) / (time.process_time() - begun)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--replies", type=int, default=100_000)
    options = parser.parse_args()
    data = yaml.safe_load((ROOT / "tests/monitor/data/replies.yaml").read_text())
    texts = (reply.rpartition("\t")[2] for group in data.values() for reply in group)  # a relay host may stand before
    replies = list(itertools.islice(itertools.cycle(texts), options.replies))
    different = rate(Classifier.load(), [f"{reply} q{_letters(number)}" for number, reply in enumerate(replies)])
    usual = [reply.replace("192.0.2.1", f"192.0.2.{number % 250}") for number, reply in enumerate(replies)]
    repeated = rate(Classifier.load(), usual)
    print(f"{'all different':16}{different:>12,.0f} replies/s\n{'as in a log':16}{repeated:>12,.0f} replies/s")
    return 0 if different >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
