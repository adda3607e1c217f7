"""One module a command; parses, calls a job, prints."""
