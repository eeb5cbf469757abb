"""bench_content - what classification and fingerprint add to a message of 30 KB in the milter, in microseconds.

Counted is processor time of this process, and the fastest of several rounds, so that a busy machine does not matter much.

    bench/bench_content.py [--seconds 3]

Messages are written ones (bench/messages) in a shop's HTML, with spacer rows up to 30 KB, each with another recipient's
data, in quoted-printable, base64 and as they are.  Exit status 1 if any is above 300 microseconds.
"""

from __future__ import annotations

import argparse
import base64
import quopri
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

from relaywarden.content import text  # noqa: E402
from relaywarden.content.fingerprint import fingerprint  # noqa: E402
from relaywarden.content.judge import judge  # noqa: E402
from templates_render import written  # noqa: E402

SIZE, TARGET = 30_000, 300.0
_STYLE = "padding:12px 24px;font-family:Helvetica,Arial,sans-serif;font-size:15px;line-height:22px;color:#333333"
_CELL = f'<tr><td style="{_STYLE}" align="left">'
Message = tuple[list[tuple[str, bytes | str]], bytes]


def messages(coding: str) -> list[Message]:
    """A few hundred of them."""
    found: list[Message] = []
    samples = list(written(ROOT / "bench/messages/apart.txt", dressed=True))
    for number, sample in enumerate(samples):
        # Four texts make one long message: what a newsletter has.
        texts = [samples[(number + step) % len(samples)].message for step in range(4)]
        shown = "\n".join(text.look(*text.split(each)).visible.decode() for each in texts)
        words = shown.split()
        cells = [" ".join(words[at : at + 6]) for at in range(0, len(words), 6)]
        page = "<html><head><style>" + "td{margin:0}\n" * 200 + "</style></head><body><table>\n"
        page += "\n".join(
            f'{_CELL}{cell} <a href="https://click.example/{number:x}{at:x}">&rsaquo;</a></td></tr>'
            for at, cell in enumerate(cells)
        )
        page = (page + "\n" + f"{_CELL}&nbsp;</td></tr>\n" * 200)[: SIZE - 200] + f"{shown[-150:]}</table></body></html>"
        body = page.encode()
        encoded = {"base64": base64.encodebytes, "quoted-printable": quopri.encodestring}.get(coding, bytes)(body)
        headers, _ = text.split(sample.message)
        kept: list[tuple[str, bytes | str]] = [header for header in headers if not header[0].lower().startswith("content-")]
        found.append(([*kept, ("Content-Type", "text/html; charset=utf-8"), ("Content-Transfer-Encoding", coding)], encoded))
    return found


def measure(batch: list[Message], seconds: float) -> tuple[float, float, float]:
    """Microseconds a message of looking, judging and marking."""
    best = (float("inf"),) * 3
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        start = time.process_time()
        seen = [(headers, text.look(headers, body)) for headers, body in batch]
        looked = time.process_time()
        for headers, each in seen:
            judge(headers, each)
        judged = time.process_time()
        for _, each in seen:
            fingerprint(each)
        spent = (looked - start, judged - looked, time.process_time() - judged)
        best = min(best, spent, key=sum)
    looking, judging, marking = (each / len(batch) * 1e6 for each in best)
    return looking, judging, marking


def main() -> int:
    """Print one line for each encoding."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    worst = 0.0
    for coding in ("8bit", "quoted-printable", "base64"):
        batch = messages(coding)
        size = sum(len(body) for _, body in batch) // len(batch)
        looking, judging, marking = measure(batch, options.seconds)
        total = looking + judging + marking
        worst = max(worst, total)
        shares = f"look {looking:.0f}  judge {judging:.0f}  fingerprint {marking:.0f}"
        print(f"{coding:18}{size:7} octets  {shares}  together {total:.0f} microseconds")
    return 0 if worst <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
