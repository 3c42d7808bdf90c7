"""The report of a run: `report.json`, its schema, one self-contained page."""

from eckart.report.build import decimate, schema, write_report
from eckart.report.html import render, to_json

__all__ = ["decimate", "render", "schema", "to_json", "write_report"]
