"""The types of the factory fixtures of tests/conftest.py, for the annotations of tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from testbed.postfix import Postfix
from testbed.sidecar import Sidecar

WorkFolder = Callable[[str], Path]
PostfixFactory = Callable[..., Postfix]
SidecarFactory = Callable[..., Sidecar]
