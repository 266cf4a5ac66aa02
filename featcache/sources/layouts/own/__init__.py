"""Lists and exports of the user's own images: tables, shards, and files of other tools."""
