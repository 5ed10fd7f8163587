"""mergekit's YAML: read, merged from folders to a folder, and written."""
