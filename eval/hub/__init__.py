"""Everything that talks to the Hub: pinning, retries, downloads, commits, mirrors."""
