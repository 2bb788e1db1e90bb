"""What tests put on the stage: barriers, adopted tables, Mallory, and readers of the log."""
