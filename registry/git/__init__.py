"""git, and nothing of ours: the process, loose objects, refs, one bare repository. No persona here."""
