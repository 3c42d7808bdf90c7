"""The report of a run: `report.json`, its schema, one self-contained page, and a table for the terminal."""

from eckart.report.build import compensation_table, decimate, schema, summary_table, write_report
from eckart.report.html import render, to_json

__all__ = ["compensation_table", "decimate", "render", "schema", "summary_table", "to_json", "write_report"]
