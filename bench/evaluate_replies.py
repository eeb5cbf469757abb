"""evaluate_replies - how many real replies the classifier gets right, in scope and in blame.

Two sets are scored:
- the public replies below --data (source: ActiveCampaign/smtp-field-manual), against bench/labels/replies.json; a label is
  found by the digest of provider and reply, so that none of the replies' text stands here.  Labels are made by hand from
  each reply's description; where more than one answer is right, the label lists them.  The provider is given as the relay.
- tests/monitor/data/replies.yaml, written for this project, with one answer each.

Known limit: rules were corrected by both sets, so neither says how well unknown replies are classified.

Prints the shares, what was taken for what, and every failure.  Exit status 1 if a share is below 95 %, or a reply has no label.

    bench/evaluate_replies.py [--data /work/shared/data/replies] [--without-relay]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "monitor")]

from relaywarden_monitor.classify.classifier import Classifier  # noqa: E402

LABELS = ROOT / "bench/labels/replies.json"
OWN = ROOT / "tests/monitor/data/replies.yaml"
TARGET = 0.95


@dataclass(frozen=True, slots=True)
class Sample:
    """A reply and its right answers, `scope/blame`."""

    where: str
    relay: str
    reply: str
    right: tuple[str, ...]


def public(folder: Path) -> Iterator[Sample]:
    """The replies of the field manual; raises KeyError for one without a label."""
    labels = json.loads(LABELS.read_text())
    for path in sorted(folder.glob("data/codes/*.json")):
        document = json.loads(path.read_text())
        for source in [*document.get("providers", []), *document.get("spamFilters", [])]:
            for response in source["responses"]:
                digest = hashlib.sha256(f"{source['id']}\n{response['response']}".encode()).hexdigest()[:16]
                where = f"{path.stem}/{source['id']}/{response['status']}"
                if digest not in labels:
                    raise KeyError(f"{where}: no label {digest} in {LABELS}")
                yield Sample(where, source["id"], response["response"], tuple(labels[digest]["right"]))


def own() -> Iterator[Sample]:
    """The project's own set: a mapping of `scope/blame` to replies, each perhaps with a relay host and a tab before it."""
    for right, replies in yaml.safe_load(OWN.read_text()).items():
        for number, reply in enumerate(replies, 1):
            relay, _, text = reply.rpartition("\t")
            yield Sample(f"{right} {number}", relay, text, (right,))


def score(classifier: Classifier, name: str, samples: list[Sample], *, with_relay: bool) -> bool:
    """Print the result of one set; whether it reaches the target."""
    right, confused, failures = Counter[str](), Counter[str](), list[str]()
    for sample in samples:
        found = classifier.classify(sample.reply, sample.relay if with_relay else "")
        answers = [answer.split("/") for answer in sample.right]
        scope = found.scope.value in {answer[0] for answer in answers}
        blame = found.blame.value in {answer[1] for answer in answers if answer[0] == found.scope.value or not scope}
        right.update({"scope": scope, "blame": blame, "both": scope and blame})
        if not (scope and blame):
            got = f"{found.scope.value}/{found.blame.value}"
            confused[f"{' or '.join(sample.right)} taken for {got}"] += 1
            failures.append(
                f"  {sample.where}: {got} by {found.rule}, expected {' or '.join(sample.right)}: {sample.reply[:150]!r}"
            )
    print(
        f"{name}: {len(samples)} replies"
        + "".join(f", {what} {right[what] / len(samples):.1%}" for what in ("scope", "blame", "both"))
    )
    for what, count in confused.most_common():
        print(f"  {count} x {what}")
    print("\n".join(failures))
    return all(right[what] >= TARGET * len(samples) for what in ("scope", "blame"))


def main() -> int:
    """Score both sets."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("/work/shared/data/replies"))
    parser.add_argument("--without-relay", action="store_true", help="give the replies alone")
    options = parser.parse_args()
    classifier = Classifier.load()
    with_relay = not options.without_relay
    good = score(classifier, "own set", list(own()), with_relay=with_relay) if OWN.exists() else True
    if not options.data.is_dir():
        print(f"{options.data}: not there, only the own set was scored")
        return 0 if good else 1
    return 0 if score(classifier, "public set", list(public(options.data)), with_relay=with_relay) and good else 1


if __name__ == "__main__":
    sys.exit(main())
