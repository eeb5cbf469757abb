"""`relaywarden ask`: a dry run that spends nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from testbed.factories import WorkFolder
from testbed.sidecar import Sidecar

REQUEST = "request=smtpd_access_policy\nprotocol_state=RCPT\ninstance=1.2.3\nsasl_username={}\nrecipient=bob@x.example\n"


@pytest.fixture
def sidecar(work_folder: WorkFolder) -> Sidecar:
    work = work_folder("ask")
    config: dict[str, Any] = {
        "store": f"sqlite:///{work}/ledger.db",
        "policyd": {"listen": [f"unix:{work}/policy"]},
        "plans": {"none": {"limits": [{"recipients": "0/hour"}]}, "one": {"limits": [{"recipients": "1/hour"}]}},
        "tenants": {"acme": {"plan": "one"}, "mute": {"plan": "none"}},
    }
    made = Sidecar(work, config, "policyd")
    made.write()
    return made


def test_it_spends_nothing_and_tells_all(sidecar: Sidecar) -> None:
    for _ in range(3):
        done = sidecar.cli("ask", "--json", "-", text=REQUEST.format("acme"))
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        wanted = {"action": "DUNNO", "tenant": "acme", "verdict": "dunno", "limit": "recipients: 1/1h", "used": 0, "allowed": 1,
                  "retry_after": None, "reason": "within all limits"}  # fmt: skip
        assert {name: document[name] for name in wanted} == wanted


def test_several_requests_crlf_and_no_last_empty_line(sidecar: Sidecar) -> None:
    file = sidecar.work / "requests"
    text = "\n" + REQUEST.format("acme") + "\n\n\n" + REQUEST.format("mute") + "\n" + REQUEST.format("nobody").rstrip("\n")
    file.write_bytes(text.replace("\n", "\r\n").encode())
    done = sidecar.cli("ask", "--json", str(file))
    assert done.returncode == 1, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [item["verdict"] for item in found] == ["dunno", "reject", "reject"]
    assert [item["tenant"] for item in found] == ["acme", "mute", None]
    people = sidecar.cli("ask", str(file))
    assert people.returncode == 1
    assert "RCPT bob@x.example by mute: reject" in people.stdout
    assert "recipients: 0/1h, 0 used of 0" in people.stdout


@pytest.mark.parametrize("text", ["", "\n\n", "garbage\n", "protocol_state=RCPT\n\n", REQUEST.format("acme") + "size=x\n"])
def test_malformed_input_is_exit_status_2(sidecar: Sidecar, text: str) -> None:
    done = sidecar.cli("ask", "-", text=text)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()


def test_a_missing_file_is_exit_status_2(sidecar: Sidecar) -> None:
    assert sidecar.cli("ask", str(Path("/nonexistent"))).returncode == 2


def test_what_goes_to_a_grant_or_on_hold_is_said(sidecar: Sidecar) -> None:
    sidecar.config["plans"]["none"]["on_exceed"] = "hold"
    sidecar.write()
    held = sidecar.cli("ask", "--json", "-", text=REQUEST.format("mute"))
    assert held.returncode == 1
    assert json.loads(held.stdout)["action"].startswith("HOLD Over the sending limit of 0 recipients")
    assert sidecar.cli("grant", "mute", "recipients=5", "--until", "2099-01-01", "--reason", "trial").returncode == 0
    granted = sidecar.cli("ask", "--json", "-", text=REQUEST.format("mute"))
    assert granted.returncode == 0, granted.stdout
    document = json.loads(granted.stdout)
    assert (document["verdict"], document["cause"], document["granted"]) == ("dunno", "granted", True)
    assert "charged to a grant" in sidecar.cli("ask", "-", text=REQUEST.format("mute")).stdout


def test_what_running_policyd_spent_is_seen(sidecar: Sidecar) -> None:
    import socket

    with sidecar, socket.socket(socket.AF_UNIX) as smtpd:
        smtpd.settimeout(10)
        smtpd.connect(str(sidecar.config["policyd"]["listen"][0]).removeprefix("unix:"))
        smtpd.sendall(REQUEST.format("acme").encode() + b"\n")
        assert smtpd.recv(100) == b"action=DUNNO\n\n"
        done = sidecar.cli("ask", "--json", "-", text=REQUEST.format("acme").replace("1.2.3", "4.5.6"))
    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert (document["verdict"], document["used"], document["allowed"]) == ("defer", 1, 1)
    assert document["retry_after"] > 3500
