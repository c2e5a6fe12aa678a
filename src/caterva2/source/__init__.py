"""Where bytes come from: local files, another host, and the reading of slices from either."""
