"""Where texts come from: local folders, hub data sets and packaged corpora."""
