"""evaluate_reports - do feedback reports parse as labelled?  Exit status 0: field for field, 1: not.

    python bench/evaluate_reports.py FOLDER      FOLDER: *.eml, and beside each a .json with the expected fields

The labels write values in another style (AuthFailure, BodyHash, null for what is absent); they are brought to ours.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "monitor")]

from relaywarden_monitor.reports import arf  # noqa: E402
from relaywarden_monitor.reports.mime import parse  # noqa: E402

DEFAULT = ROOT.parent / "shared" / "data" / "arf" / "resources" / "arf"
WORDS = {"feedback_type", "auth_failure", "delivery_result", "identity_alignment"}
SPELLED = {"authfailure": "auth-failure", "notspam": "not-spam", "optout": "opt-out", "unspecified": ""}


def ours(name: str, expected: Any) -> Any:
    """The label's value as an ArfReport has it."""
    if name in WORDS:
        word = str(expected).lower()
        return SPELLED.get(word, word)
    if name == "original_rcpt_to":
        return (expected,) if expected else ()
    if isinstance(expected, list):
        return tuple(expected)
    return "" if expected is None and name != "arrival_date" else expected


def differences(eml: Path) -> list[str]:
    """What is not as labelled."""
    found = arf.find(parse(eml.read_bytes()))
    if found is None:
        return ["no feedback report found"]
    got = dataclasses.asdict(found)
    labels: dict[str, Any] = json.loads(eml.with_suffix(".json").read_text())
    return [
        f"{name}: expected {ours(name, label)!r}, got {got[name]!r}"
        for name, label in labels.items()
        if name != "message" and got[name] != ours(name, label)  # the enclosed message is for the reader, not a field
    ]


def main() -> int:
    """Print each difference and the score."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    files = sorted(folder.glob("*.eml"))
    wrong = 0
    for eml in files:
        found = differences(eml)
        wrong += bool(found)
        for line in found:
            print(f"{eml.name}: {line}")
    print(f"feedback reports: {len(files) - wrong} of {len(files)} as labelled")
    return 1 if wrong or not files else 0


if __name__ == "__main__":
    sys.exit(main())
