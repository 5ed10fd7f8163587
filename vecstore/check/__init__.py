"""Is every stored tensor what its id says, and where can a lost pack come from?"""
