"""Verify DKIM signatures with two programs that share no code: dkimpy and Perl's Mail::DKIM.

`by_perl` takes many messages at once (a Perl process costs more than a verification) and asks the testbed's DNS server.
Both return one list a message: a (d=, s=, result) for every signature, from the top; the result is "pass" or the reason.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence

import dkim

from testbed.dns import DnsServer
from testbed.process import program

Verdict = tuple[str, str, str]

_PERL = r"""
use strict; use warnings; use JSON::PP; use Net::DNS; use Mail::DKIM::Verifier; use Mail::DKIM::DNS;
my ($host, $port) = @ARGV;
Mail::DKIM::DNS::resolver(Net::DNS::Resolver->new(nameservers => [$host], port => $port, recurse => 1));
binmode STDIN;
while (read(STDIN, my $head, 4)) {
    read(STDIN, my $message, unpack("N", $head));
    my $verifier = Mail::DKIM::Verifier->new();
    $verifier->PRINT($message);
    $verifier->CLOSE();
    my @found;
    for my $signature ($verifier->signatures) {
        push @found, [$signature->domain, $signature->selector,
                      $signature->result eq "pass" ? "pass" : $signature->result_detail];
    }
    print encode_json(\@found), "\n";
}
"""


def by_dkimpy(message: bytes, dns: DnsServer) -> list[Verdict]:
    found: list[Verdict] = []
    count = len([1 for name, _ in dkim.DKIM(message).headers if name.lower() == b"dkim-signature"])
    for index in range(count):
        check = dkim.DKIM(message)
        try:
            result = "pass" if check.verify(index, dnsfunc=dns.txt) else "fail"
        except dkim.DKIMException as error:
            result = str(error)
        found.append((_text(check.domain), _text(check.selector), result))
    return found


def _text(value: bytes | str | None) -> str:
    """A tag; what dkimpy could not read is left at its own default, which is text."""
    return value.decode() if isinstance(value, bytes) else ""


def by_perl(messages: Sequence[bytes], dns: DnsServer) -> list[list[Verdict]]:
    fed = b"".join(len(message).to_bytes(4, "big") + message for message in messages)
    argv = [program("perl", "perl"), "-e", _PERL, dns.host, str(dns.port)]
    done = subprocess.run(argv, input=fed, capture_output=True, check=False, timeout=120)
    if done.returncode != 0:
        raise RuntimeError(f"Mail::DKIM (libmail-dkim-perl) failed: {done.stderr.decode(errors='replace')}")
    return [[(domain, selector, result) for domain, selector, result in json.loads(line)] for line in done.stdout.splitlines()]
