"""Report of the study on real recordings."""

from __future__ import annotations

from pathlib import Path

from spectrim.pictures.report import Report
from spectrim.studies.recordings import RecordingsPlan


def write_report(plan: RecordingsPlan, out: Path, data: Path) -> Path:
    """Write the report."""
    report = Report("Stub", out)
    return report.write()
