"""classify_command - `relaywarden classify`: what reply texts, bounce mails, complaints and messages are.

Replies come one a line from files or standard input, with a relay host and a tab before the reply where it is known.  Every
line has its answer, in order, also an empty one; each is written at once, so that the command can stand in a pipe.  With
--json an answer is one object a line; the keys are those of Verdict, and `matched`, `source` and `label` for people.

How it fails: a configuration that is there but unusable, or a rule file with faults, is a ConfigError; a configuration that
is not there is none.  Bytes that are not UTF-8 are shown as U+FFFD.  A line is cut at LONGEST_LINE characters.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relaywarden_monitor.classify.classifier import Classifier, Explanation

if TYPE_CHECKING:
    from relaywarden.config.settings import Settings
    from relaywarden.feedback import Tokens

LONGEST_LINE = 65_536


@click.command()
@click.argument("files", nargs=-1, type=click.Path(allow_dash=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--report", is_flag=True, help="The files are bounce and complaint mails.")
@click.option("--message", is_flag=True, help="The files are messages: transactional or bulk mail?")
@click.option(
    "--rules",
    "extra",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file of your own rules, asked before the others; may be given more than once.",
)
@click.pass_context
def classify(
    ctx: click.Context, files: tuple[Path, ...], as_json: bool, report: bool, message: bool, extra: tuple[Path, ...]
) -> None:
    """Say what replies of mail servers mean, and which rule says so; or what bounces, complaints and messages are.

    Reads replies from FILES or standard input, one a line; a relay host and a tab may stand before a reply.
    """
    if report and message:
        raise click.UsageError("--report and --message are about different files; choose one")
    if message:
        from relaywarden_monitor.message_command import classify_messages  # noqa: PLC0415 - needs no rules

        classify_messages(files, as_json)
        return
    settings = _settings(ctx.obj)
    classifier = Classifier.load([*extra, *(settings.monitor.rules if settings else ())])
    if report:
        from relaywarden_monitor.reports.command import classify_reports  # noqa: PLC0415 - the mail parsers are slow to load

        classify_reports(files, as_json, classifier, _tokens(settings))
        return
    try:
        for line in _lines(files):
            relay, tab, reply = line.partition("\t")
            found = classifier.explain(reply if tab else line, relay if tab else "")
            click.echo(json.dumps(document(found)) if as_json else "\n".join([*block(found), ""]))
            sys.stdout.flush()
    except OSError as error:
        raise click.ClickException(f"{error.filename or 'standard input'}: cannot be read: {error.strerror}") from error


def document(found: Explanation) -> dict[str, Any]:
    """An answer for programs; `wait` in seconds."""
    verdict = found.verdict
    return {
        "category": verdict.category,
        "scope": verdict.scope.value,
        "blame": verdict.blame.value,
        "severity": verdict.severity.value,
        "wait": verdict.wait,
        "provider": verdict.provider,
        "rule": verdict.rule,
        "temporary": verdict.temporary,
        "own": verdict.own,
        "label": found.label,
        "matched": found.matched,
        "source": found.rule.source,
    }


def block(found: Explanation) -> Iterator[str]:
    """An answer for people: one line a key."""
    for key, value in {"meaning": found.meaning, **document(found)}.items():
        if value not in {None, ""}:
            text = "yes" if value is True else "no" if value is False else str(value)
            yield f"{key:10}{text}{' s' if key == 'wait' else ''}"


def _lines(files: Iterable[Path]) -> Iterator[str]:
    for path in files or (Path("-"),):
        with click.open_file(str(path), encoding="utf-8", errors="replace") as lines:
            while line := lines.readline(LONGEST_LINE):
                rest = line
                while not rest.endswith("\n") and rest:  # of a longer line
                    rest = lines.readline(LONGEST_LINE)
                yield line.rstrip("\r\n")


def _settings(path: Path | None) -> Settings | None:
    from relaywarden.config.load import load  # noqa: PLC0415 - not needed for bare replies

    return load(path) if path is not None and path.exists() else None


def _tokens(settings: Settings | None) -> Tokens | None:
    if settings is None or settings.operator.feedback is None:
        return None
    from relaywarden.feedback import Tokens  # noqa: PLC0415 - for reports only

    return Tokens.from_file(settings.operator.feedback.secret)
