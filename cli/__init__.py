"""The two commands, `featcache` and `heads`: parse, call one function, print."""
