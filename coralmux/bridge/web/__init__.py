"""AI servers that are reached by HTTP."""
