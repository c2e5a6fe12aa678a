"""For tests, ours and others': sources and services that need no set-up."""
