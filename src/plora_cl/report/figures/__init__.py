"""The figures of a report, each with the table of what it shows."""
