"""The vector store room: what a task vector *is*, and what can be computed from one."""
