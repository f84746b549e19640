"""What every component may include: command line, records, tracking, lineage, chat client, text statistics."""
