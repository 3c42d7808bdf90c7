"""The formats that a model can be exported to, one a file; `contract` says what such a file holds."""
