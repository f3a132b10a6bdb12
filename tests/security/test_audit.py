"""The audit reports which packages it did not check."""

from __future__ import annotations

import importlib.util
from pathlib import Path

spec = importlib.util.spec_from_file_location("audit", Path(__file__).parents[2] / ".ci/audit.py")
assert spec is not None and spec.loader is not None
audit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(audit)

FINE = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1"}, {"id": "CVE-2"}]}
SKIPPED = {"name": "c", "skip_reason": "not found"}


def test_the_audit_reports_that_the_advisory_service_did_not_answer() -> None:
    text, vulnerable, whole = audit.summary([SKIPPED, SKIPPED], 2)
    assert "NOT AUDITED" in text and "2 packages" in text and not vulnerable and not whole
    assert audit.summary([], 2) == (text, False, False)


def test_vulnerable_packages_are_named_and_unaudited_packages_are_counted() -> None:
    text, vulnerable, whole = audit.summary([FINE, BAD, SKIPPED], 3)
    assert "b 2 (CVE-1, CVE-2); 1 of 3 packages NOT AUDITED" in text and vulnerable and not whole
    assert audit.summary([FINE], 1) == ("audit: no known vulnerabilities in 1 packages", False, True)
