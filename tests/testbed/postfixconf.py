"""What the testbed's Postfix is configured with, around the fragments of contrib/postfix and contrib/pmta.

The fragments are taken as they are; what stands here is what an operator's Postfix has before relaywarden comes, cut
down to loopback and made quick (a queue run each second, no look-ups, no limits that a test would run into).
"""

from __future__ import annotations

from pathlib import Path

CONTRIB = Path(__file__).resolve().parents[2] / "contrib" / "postfix"
CONTRIB_PMTA = CONTRIB.with_name("pmta")

SERVICES = """pickup    unix  n - n 1   1 pickup
cleanup   unix  n - n -   0 cleanup
qmgr      unix  n - n 1   1 qmgr
rewrite   unix  - - n -   - trivial-rewrite
bounce    unix  - - n -   0 bounce
defer     unix  - - n -   0 bounce
trace     unix  - - n -   0 bounce
verify    unix  - - n -   1 verify
flush     unix  n - n 600 0 flush
proxymap  unix  - - n -   - proxymap
smtp      unix  - - n -   - smtp
relay     unix  - - n -   - smtp
showq     unix  n - n -   - showq
error     unix  - - n -   - error
retry     unix  - - n -   - error
discard   unix  - - n -   - discard
anvil     unix  - - n -   1 anvil
scache    unix  - - n -   1 scache
tlsmgr    unix  - - n 600 1 tlsmgr
postlog   unix-dgram n - n - 1 postlogd
"""

MAIN = """compatibility_level = 3.6
default_database_type = hash
queue_directory = {spool}
data_directory = {data}
maillog_file = {log}
maillog_file_prefixes = {work}
myhostname = {hostname}
mydestination =
mynetworks =
alias_maps =
alias_database =
local_recipient_maps =
inet_interfaces = {host}
inet_protocols = ipv4
smtpd_peername_lookup = no
smtpd_tls_security_level = none
smtp_tls_security_level = none
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = cyrus
smtpd_sasl_path = smtpd
smtpd_sasl_security_options = noanonymous
cyrus_sasl_config_path = {sasl}
relayhost = {next_hop}
default_filter_nexthop = {next_hop}
queue_run_delay = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 2s
smtp_connect_timeout = 5s
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 1000
smtpd_hard_error_limit = 2000
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
enable_long_queue_ids = yes
"""


def master(host: str, submission_port: int, xclient_port: int, *, pmta: bool) -> str:
    """master.cf: the two services with the lines of submission.relaywarden, Postfix's own, and the transports."""
    fragment = (CONTRIB / "submission.relaywarden").read_text()
    submission = f"{host}:{submission_port} inet n - n - - smtpd\n  -o syslog_name=postfix/submission\n"
    xclient = (
        f"{host}:{xclient_port} inet n - n - - smtpd\n  -o syslog_name=postfix/xclient\n"
        "  -o smtpd_authorized_xclient_hosts=127.0.0.0/8\n"
    )
    transports = CONTRIB_PMTA / "master.cf.pmta" if pmta else CONTRIB / "master.cf.relaywarden"
    return submission + fragment + xclient + fragment + SERVICES + transports.read_text()


def pmta_settings(next_hop: str) -> dict[str, str]:
    """The values of main.cf.pmta, with the address of what stands for PowerMTA."""
    settings = {}
    for line in (CONTRIB_PMTA / "main.cf.pmta").read_text().splitlines():
        name, found, value = line.partition("=")
        if found and not line.startswith("#"):
            settings[name.strip()] = value.strip()
    return settings | dict.fromkeys(("default_transport", "relay_transport"), f"pmta:{next_hop}")


# main.cf values of a site that runs the milter alone.
WITHOUT_POLICYD = {
    "relaywarden_recipient_restrictions": "permit_sasl_authenticated, reject",
    "relaywarden_data_restrictions": "",
    "relaywarden_end_of_data_restrictions": "",
}
