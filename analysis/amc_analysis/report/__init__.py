"""The report: conclusions, sections and every output format."""
