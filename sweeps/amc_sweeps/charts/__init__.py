"""The chart library of pages and reports."""
