"""What the commits mean: snapshots, operations, transactions, revisions, the log, three-way merges."""
