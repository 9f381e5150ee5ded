"""Check a sweep file before it is registered."""
