"""What a browser shows of a sweep, for the server's pages and for reports: scripts, one style sheet, and their data."""
