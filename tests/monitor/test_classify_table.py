"""What providers' own codes and words mean, row by row of the table that rules were drawn from; and every status code alone.

The first column is the host that replied, "" where the words must do without it; the second what a customer's mail meets there;
the third is right, or one of several (`|`) where the source leaves it open.
"""

from __future__ import annotations

import pytest

from relaywarden_monitor.classify.classifier import Classifier

CLASSIFIER = Classifier.load()
GMAIL, OUTLOOK, EXCHANGE = (
    "gmail-smtp-in.l.google.com",
    "hotmail-com.olc.protection.outlook.com",
    "b-example.mail.protection.outlook.com",
)
BARRACUDA, MIMECAST = "d1.a.ess.barracudanetworks.com", "eu-smtp-inbound-1.mimecast.com"
YAHOO, ICLOUD, GMX, ORANGE = "mta5.am0.yahoodns.net", "mx01.mail.icloud.com", "mx00.gmx.net", "smtp-in.orange.fr"

GOOGLE_ROWS = [
    ("421-4.7.28 Gmail has detected an unusual rate of mail originating from your IP address.", "ip/pool"),
    ("421-4.7.28 Gmail has detected an unusual rate of mail originating from your IP Netblock [192.0.2.0/24].", "ip/pool"),
    ("421-4.7.28 Gmail has detected an unusual rate of mail from your DKIM domain [brand.example].", "domain/customer"),
    ("421-4.7.28 Gmail has detected an unusual rate of mail from your SPF domain [bounce.brand.example].", "domain/customer"),
    ("421-4.7.28 Gmail has detected an unusual rate of mail containing one of your URL domains.", "content/customer"),
    ("421-4.7.28 Gmail has detected an unusual rate of mail with the same Message-ID: header.", "content/customer"),
    ("421-4.7.0 This message is suspicious due to the very low reputation of the sending IP address.", "ip/pool"),
    ("421-4.7.0 This message is suspicious due to the very low reputation of the sending domain.", "domain/customer"),
    ("550-5.7.1 This message was blocked due to the very low reputation of the sending domain.", "domain/customer"),
    ("421-4.7.0 This message is suspicious due to the nature of the content and/or the links within.", "content/customer"),
    ("550-5.7.1 [192.0.2.1] Our system has detected that this message is likely unsolicited mail.", "content/customer"),
    ("550-5.7.1 [192.0.2.1] Our system has detected an unusual rate of unsolicited mail from your address.", "ip/pool"),
    ("550-5.7.28 Our system has detected an unusual rate of unsolicited mail.", "ip/pool"),
    ("550-5.7.26 Your email has been blocked because the sender is unauthenticated.", "auth/customer"),
    ("421-4.7.26 This mail was rate limited: it is not authenticated.", "auth/customer"),
    ("421-4.7.27 Your email was rate limited because SPF did not pass.", "auth/customer"),
    ("421-4.7.30 Your email was rate limited because DKIM did not pass.", "auth/customer"),
    ("421-4.7.40 The sending domain has no DMARC record.", "auth/customer"),
    ("421-4.7.31 The sending domain has no DMARC record.", "auth/customer"),
    ("421-4.7.32 The From: header is not aligned with either SPF or DKIM.", "auth/customer"),
    ("421-4.7.24 The SPF record of the sending domain has suspicious entries.", "auth/customer"),
    ("421-4.7.23 The sending IP address does not have a PTR record.", "infra/pool"),
    ("550-5.7.25 The sending IP address does not match its PTR record.", "infra/pool"),
    ("421-4.7.29 This message was not sent over a TLS connection.", "infra/pool"),
    ("550-5.7.1 This message has duplicate headers.", "content/customer"),
    ("550-5.7.1 This message is not RFC 5322 compliant.", "content/customer"),
    ("550-5.7.1 Messages missing a valid Message-ID header are not accepted.", "content/customer"),
    ("450-4.2.1 The user you are trying to contact is receiving mail too quickly.", "rate/customer"),
    ("450-4.2.1 The user is receiving mail at a rate that prevents additional messages.", "rate/customer"),
    ("550-5.2.1 The user is receiving mail at a rate that prevents additional messages.", "rate/customer"),
    ("452-4.2.2 The recipient's inbox is out of storage space.", "full/recipient"),
    ("552-5.2.2 The recipient's inbox is out of storage space and inactive.", "full/recipient"),
    ("552-5.2.2 The account is over quota.", "full/recipient"),
    ("550-5.2.1 The account is inactive.", "mailbox/recipient"),
    ("550-5.1.1 The account does not exist.", "mailbox/recipient"),
]  # fmt: skip
MICROSOFT_ROWS = [
    ("451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation (S775)", "ip/pool"),
    ("451 4.7.651 Rate limited due to IP reputation (S3114)", "ip/pool"),
    ("451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (AS77712345)", "rate/pool|ip/pool"),
    ("451 4.7.550 Access denied, please try again later", "ip/pool"),
    ("451 4.7.650 Access denied, please try again later", "ip/pool"),
    ("451 4.7.860 Access denied, please try again later", "ip/pool"),
    ("550 5.7.1 Your network is on our block list (S3140).", "ip/pool"),
    ("550 5.7.1 Your network is on our block list (S3150).", "ip/pool"),
    ("550 5.7.606 Access denied, banned sending IP [192.0.2.1].", "ip/pool"),
    ("550 5.7.649 Access denied, banned sending IP [192.0.2.1].", "ip/pool"),
    ("550 5.7.511 Access denied, banned sender, write to delist@microsoft.example", "ip/pool"),
    ("550 5.7.501 Access denied, spam abuse detected from IP [192.0.2.1]", "ip/pool"),
    ("550 5.7.502 Access denied, banned sender", "ip/pool|domain/pool"),
    ("550 5.7.503 Access denied, banned sender", "ip/pool|domain/pool"),
    ("550 5.7.508 Access denied, [192.0.2.1] has exceeded permitted limits within the range", "rate/pool"),
    ("550 5.7.705 Access denied, tenant has exceeded threshold", "rate/pool"),
    ("550 5.7.515 Access denied, brand.example does not meet the required authentication level", "auth/customer"),
    ("550 5.7.509 Access denied, sending domain brand.example does not pass DMARC", "auth/customer"),
    ("550 5.7.23 The message was rejected because of Sender Policy Framework violation", "auth/customer"),
    ("421 RP-001 The mail server IP has exceeded the rate limit allowed.", "ip/pool|rate/pool"),
    ("421 RP-002 The mail server IP has exceeded the rate limit allowed on this connection.", "ip/pool|rate/pool"),
    ("421 RP-003 The mail server IP has exceeded the connection limit allowed.", "ip/pool|rate/pool"),
    ("550 SC-001 Mail rejected for policy reasons: spam-like content or IP reputation.", "content/pool|content/customer"),
    ("550 OU-002 Mail rejected for policy reasons: spam-like content or IP reputation.", "content/pool|content/customer"),
    ("550 SC-002 Mail rejected for policy reasons: namespace mining.", "ip/customer"),
    ("550 SC-003 Mail rejected for policy reasons: open proxy.", "ip/pool"),
    ("550 SC-004 Mail rejected for policy reasons: a block was placed after complaints.", "ip/pool"),
    ("550 DY-001 Mail rejected for policy reasons: no mail from dynamic IP addresses.", "ip/pool"),
    ("550 DY-002 Mail rejected for policy reasons: a compromised server.", "ip/pool"),
    ("550 OU-001 Mail rejected for policy reasons: see the SBL.", "ip/pool"),
    ("550 5.7.1 Service unavailable, MailFrom domain is listed in Spamhaus. (S8002)", "domain/customer"),
    ("550 5.7.1 Service unavailable, Helo domain is listed in Spamhaus. (S8001)", "domain/pool"),
    ("550 5.4.1 Recipient address rejected: Access denied. AS(201806281)", "mailbox/recipient"),
    ("550 5.2.121 The recipient has exceeded a per-hour limit from one sender", "rate/customer"),
    ("550 5.2.122 The recipient has exceeded the per-hour limit", "rate/customer"),
]  # fmt: skip
YAHOO_ROWS = [
    ("421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume", "ip/pool"),
    ("421 4.7.0 [TS04] Messages from 192.0.2.1 temporarily deferred", "ip/pool"),
    ("421 4.7.0 [IPTS04] Messages from 192.0.2.1 temporarily deferred", "ip/pool"),
    ("421 4.7.0 [TSS05] Messages from 192.0.2.1 temporarily deferred", "ip/pool"),
    ("421 4.7.0 [IPTS05] Messages from 192.0.2.1 temporarily deferred", "ip/pool"),
    ("421 4.7.1 [TS01] Messages from 192.0.2.1 temporarily deferred", "ip/pool"),
    ("421 4.7.1 [TS02] Messages from 192.0.2.1 temporarily deferred", "ip/pool"),
    ("421 4.7.1 [TS03] All messages from 192.0.2.1 will be permanently deferred", "ip/pool"),
    ("553 5.7.2 [TSS09] All messages from 192.0.2.1 will be permanently deferred", "ip/pool"),
    ("553 5.7.2 [TSS11] All messages from 192.0.2.1 will be permanently deferred", "ip/pool"),
    ("553 5.7.1 [BL21] Connections will not be accepted from 192.0.2.1", "ip/pool"),
    ("553 5.7.1 [TSS07] Connections will not be accepted from 192.0.2.1", "ip/pool"),
    ("554 5.7.9 [PH01] Message refused", "content/customer"),
    ("554 5.7.9 Message not accepted for policy reasons.", "content/customer"),
    ("550 5.7.9 Yahoo requires all senders to authenticate with either SPF or DKIM.", "auth/customer"),
    ("451 Message temporarily deferred due to unresolvable RFC.5322 from domain.", "infra/customer"),
    ("451 Message temporarily deferred due to unresolvable RFC.5321 from domain.", "infra/customer"),
    ("421 4.7.1 Excessive unknown recipients - possible Open Relay", "mailbox/customer"),
    ("554 delivery error: dd This user doesn't have a yahoo.example account", "mailbox/recipient"),
    ("552 1 Requested mail action aborted, mailbox not found", "mailbox/recipient"),
    ("554 30 Your message cannot be delivered. This mailbox is disabled (554.30).", "mailbox/recipient"),
    ("421 Max message per connection reached, closing transmission channel", "rate/pool"),
    ("554 (RTR:SC) mail refused", "ip/pool"),
    ("554 (RTR:BL) mail refused", "ip/pool"),
    ("554 (CON:B1) mail refused", "ip/pool"),
    ("554 (RLY:B1) mail refused", "ip/pool"),
    ("421 (DYN:T1) later", "ip/pool|rate/pool"),
    ("553 5.3.0 alph1 DNSBL:RBL 521< 192.0.2.1 >", "ip/pool"),
    ("553 5.3.0 alph1 DNSBL:ATTRBL 521< 192.0.2.1 >", "ip/pool"),
]  # fmt: skip
OTHER_ROWS = [
    (ICLOUD, "421 4.7.0 [HCM1] Message from 192.0.2.1 deferred", "rate/pool|ip/pool"),
    (ICLOUD, "450 4.7.1 Messages from 192.0.2.1 deferred due to excessive volume", "rate/pool|ip/pool"),
    (ICLOUD, "554 5.7.1 [CS01] Message rejected due to local policy.", "content/customer"),
    (ICLOUD, "554 5.7.1 [HME1] Blocked, SPF and DKIM fail", "auth/customer"),
    (ICLOUD, "550 5.7.1 Rejected due to having a domain present in the Spamhaus DBL", "domain/customer"),
    ("", "554 Blocked - see https://support.proofpoint.com/dnsbl-lookup.cgi?ip=192.0.2.1", "ip/pool"),
    ("", "554 Blocked - see https://ipcheck.proofpoint.com/?ip=192.0.2.1", "ip/pool"),
    ("", "550 5.7.1 Client host [192.0.2.1] blocked using prs.proofpoint.com", "ip/pool"),
    ("", "550 5.7.1 192.0.2.1 refused, see https://csi.cloudmark.com/en/reset/?ip=192.0.2.1", "ip/pool"),
    ("", "554 5.7.1 poor reputation on Cloudmark Sender Intelligence", "ip/pool"),
    ("", "554 5.7.1 Client host [192.0.2.1] blocked using zen.spamhaus.org", "ip/pool"),
    ("", "554 5.7.1 Client host [192.0.2.1] blocked using sbl.spamhaus.org", "ip/pool"),
    ("", "554 5.7.1 Client host [192.0.2.1] blocked using xbl.spamhaus.org", "ip/pool"),
    ("", "554 5.7.1 Client host [192.0.2.1] blocked using pbl.spamhaus.org", "ip/pool"),
    ("", "554 5.7.1 refused, see https://www.spamhaus.org/query/ip/192.0.2.1", "ip/pool"),
    ("", "554 5.7.1 Sender address [a@brand.example] blocked using dbl.spamhaus.org", "domain/customer"),
    ("", "554 5.7.1 Sender address [a@brand.example] blocked using multi.surbl.org", "domain/customer"),
    ("", "554 5.7.1 A URL in your message is listed by multi.uribl.com", "content/customer"),
    ("", "554 5.7.1 A URL in your message is listed by dbl.spamhaus.org", "content/customer"),
    ("", "554 Client host [192.0.2.1] blocked using b.barracudacentral.org", "ip/pool"),
    ("", "554 Client host [192.0.2.1] blocked using Barracuda Reputation", "ip/pool"),
    (BARRACUDA, "550 permanent failure for one or more recipients (joe@b.example:blocked)", "content/customer"),
    (BARRACUDA, "550 spam URL in content", "content/customer"),
    (BARRACUDA, "550 cuda_nsu Abuse", "policy/customer"),
    (BARRACUDA, "550 cuda_nsu Policy Rejection- Abuse", "policy/customer"),
    (MIMECAST, "550 Poor Reputation Sender.", "ip/pool"),
    (MIMECAST, "550 Rejected by ct ip reputation", "ip/pool"),
    (MIMECAST, "451 Internal resources are temporarily unavailable", "greylist/recipient|ip/pool"),
    (MIMECAST, "554 Email rejected due to security policies", "content/customer"),
    (GMX, "554 No SMTP service. IP address is block listed.", "ip/pool"),
    (GMX, "554 Transaction failed. Reject due to policy restrictions (IP based).", "ip/pool"),
    (GMX, "554 Transaction failed. Reject due to policy restrictions (header based).", "content/customer"),
    (GMX, "554 Transaction failed. Reject due to policy restrictions (domain based).", "domain/customer"),
    (GMX, "450 Requested mail action not taken. Reject due to policy violations.", "mailbox/customer"),
    (GMX, "421 Requested action aborted. Reject due to policy violations.", "mailbox/customer"),
    (GMX, "421 Rate limit reached.", "rate/pool"),
    (GMX, "554 No SMTP service. Bad DNS PTR resource record.", "infra/pool"),
    (ORANGE, "550 OFR006_102 blocked", "ip/pool"),
    (ORANGE, "550 OFR_103 blocked", "ip/pool"),
    (ORANGE, "421 OFR004_104 later", "rate/pool"),
    (ORANGE, "421 OFR_505 later", "ip/pool"),
    (ORANGE, "450 OFR_999 later", "ip/pool"),
    (ORANGE, "550 5.2.0 OFR_506 refused", "content/customer"),
    (ORANGE, "550 5.5.0 OFR_510 refused", "content/customer"),
    (ORANGE, "501 OFR_517 refused", "auth/customer"),
    ("smtpz4.laposte.net", "550 5.5.0 SPF: LPN004_401 refused", "auth/customer"),
    (ORANGE, "550 5.1.1 OFR_416 refused", "mailbox/recipient"),
    (ORANGE, "552 5.1.1 OFR_417 refused", "full/recipient"),
    (ORANGE, "550 5.5.0 OFR_420 refused", "mailbox/recipient"),
    (ORANGE, "550 5.5.0 OFR_426 refused", "mailbox/recipient"),
    ("mx1.free.fr", "421 Too many spams from your IP (192.0.2.1)", "ip/pool"),
    ("mx1.free.fr", "550 Too many spams from your IP (192.0.2.1)", "ip/pool"),
    ("mx1.free.fr", "421 too many errors from your ip (192.0.2.1)", "mailbox/customer"),
    ("mx1.free.fr", "550 spam detected", "content/customer"),
    ("smtp-in.sfr.fr", "550 5.7.1 Message content rejected", "content/customer"),
    ("mx00.t-online.de", "554 IP=192.0.2.1 - A problem occurred. (BL)", "ip/pool"),
    ("mx00.t-online.de", "554 IP:192.0.2.1 - A problem occurred. Write to tosa@rx.t-online.de (BL)", "ip/pool"),
    ("mx1.comcast.net", "421 RL000001 throttled", "rate/pool"),
    ("mx1.comcast.net", "554 BL000001 refused", "ip/pool"),
    ("mx1.comcast.net", "550 DM000001 refused", "auth/customer"),
    ("", "450 4.7.1 Grey listed, please wait", "greylist/recipient"),
    ("", "421 You are greylisted", "greylist/recipient"),
    ("", "550 5.7.1 The sending address does not have a PTR record", "infra/pool"),
]  # fmt: skip
ROWS = [
    *((GMAIL, f"{reply} abc123 - gsmtp", right) for reply, right in GOOGLE_ROWS),
    *((EXCHANGE if "5." in reply[:7] else OUTLOOK, reply, right) for reply, right in MICROSOFT_ROWS),
    *((YAHOO, reply, right) for reply, right in YAHOO_ROWS),
    *OTHER_ROWS,
]


@pytest.mark.parametrize(("relay", "reply", "right"), ROWS)
def test_a_row_of_the_table(relay: str, reply: str, right: str) -> None:
    found = CLASSIFIER.classify(reply, relay)
    assert f"{found.scope.value}/{found.blame.value}" in right.split("|"), found.rule


@pytest.mark.parametrize("code", ["S775", "S3114", "S3140", "S3150"])
def test_the_code_of_microsoft_is_kept_as_label(code: str) -> None:
    assert CLASSIFIER.explain(f"550 5.7.1 Your network is on our block list ({code}).").label == code


BY_ENHANCED_CODE = {  # RFC 3463, 5248, 7372, 7505, 8616 and IANA's registry
    "mailbox/recipient": "1.0 1.1 1.3 1.4 1.6 1.10 2.0 2.1 7.13 7.17 7.18",
    "full/recipient": "2.2",
    "content/customer": "2.3 3.4 6.0 6.1 6.2 6.3 6.4 6.5 6.6 6.8 6.9 6.10",
    "infra/recipient": "1.2 2.4 3.1 3.2 3.3 3.5 3.6 4.1 4.2 4.3 4.4 4.6 4.7",
    "infra/customer": "1.7 1.8 7.27",
    "infra/pool": "5.1 5.2 5.4 5.5 5.6 6.7 7.10 7.11 7.25 7.30",
    "rate/pool": "4.5 5.3 7.28",
    "auth/customer": "7.20 7.21 7.22 7.23 7.24 7.26 7.29",
    "policy/recipient": "7.0 7.1 7.2 7.3 7.4 7.5 7.6 7.7 7.8 7.9 7.14 7.15 7.16 7.19",
}
BY_VAGUE_CODE = [
    ("5.3.0", "infra/recipient"),
    ("451 4.3.0", "infra/recipient"),
    ("450 4.4.0", "infra/recipient"),
    ("450 4.5.0", "infra/pool"),
    ("550 5.3.0", "mailbox/recipient"),
    ("550 5.5.0", "mailbox/recipient"),
    ("552 5.0.0", "full/recipient"),
    ("5.0.0", "policy/recipient"),
]
BY_BASIC_CODE = {  # RFC 5321, 4954, 3207, 7504
    "infra/recipient": "420 421 431 432 441 442 446 447 449 451 452 454 512",
    "infra/pool": "455 500 501 502 503 504 555",
    "mailbox/recipient": "450 510 511 513 521 550 551 553 556",
    "full/recipient": "552",
    "policy/recipient": "530 535 554 571",
}


@pytest.mark.parametrize(
    ("right", "kind"), [(right, kind) for right, kinds in BY_ENHANCED_CODE.items() for kind in kinds.split()]
)
@pytest.mark.parametrize("form", ["550 5.{}", "450 4.{}", "5.{}", "550-5.{} sorry\n550 5.{} sorry", "451 sorry (#4.{})"])
def test_an_enhanced_code_alone(right: str, kind: str, form: str) -> None:
    found = CLASSIFIER.classify(form.format(kind, kind))
    assert (f"{found.scope.value}/{found.blame.value}", found.rule) == (right, "status-code")


@pytest.mark.parametrize(("reply", "right"), BY_VAGUE_CODE)
def test_where_the_enhanced_code_is_vague_the_basic_one_counts(reply: str, right: str) -> None:
    found = CLASSIFIER.classify(reply)
    assert f"{found.scope.value}/{found.blame.value}" == right


@pytest.mark.parametrize(("right", "code"), [(right, code) for right, codes in BY_BASIC_CODE.items() for code in codes.split()])
def test_a_basic_code_alone(right: str, code: str) -> None:
    for reply in (code, f"{code} sorry", f"{code}-sorry\r\n{code} sorry", f"host mx.b.example[192.0.2.1] said: {code} sorry"):
        found = CLASSIFIER.classify(reply)
        assert (f"{found.scope.value}/{found.blame.value}", found.rule) == (right, "status-code")
