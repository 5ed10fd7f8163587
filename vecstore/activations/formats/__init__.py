"""Files of steering vectors, of this tool and of others: one format a file, listed in `table`."""
