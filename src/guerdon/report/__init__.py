"""The page that shows what a run did: one self-contained HTML file, and a table for the terminal."""

from guerdon.report.finding import Finding, find
from guerdon.report.html import render, write_report
from guerdon.report.record import Record, read_record
from guerdon.report.terminal import summary_table

__all__ = ["Finding", "Record", "find", "read_record", "render", "summary_table", "write_report"]
