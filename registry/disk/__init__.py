"""Files that survive: durable writes, locks, temporary files, and the safetensors format."""
