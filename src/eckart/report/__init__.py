"""The reports of jobs: what they say, as dataclasses; their JSON, its schema, and one self-contained page."""

from eckart.report.build import decimate, write_report
from eckart.report.compression import schema
from eckart.report.html import render, to_json
from eckart.report.schema import as_json, schema_of

__all__ = ["as_json", "decimate", "render", "schema", "schema_of", "to_json", "write_report"]
