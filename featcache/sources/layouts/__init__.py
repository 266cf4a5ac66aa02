"""How images are listed: class folders, tables, shards and the exports of other tools."""
