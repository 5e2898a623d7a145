"""`coralmux-phone` as a person or a script runs it: processes, pipes and terminals."""
