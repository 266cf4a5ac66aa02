"""What every command shares: how it is declared, what it prints where, and how it ends.

    commands   a command line that refuses repeated and empty values
    options    options and arguments of more than one command
    errors     the error boundary: one sentence and an exit code
    flags      what errors name, in flags and commands
    output     results on stdout, talk on stderr
    tables     tables for people, tab-separated for programs
    live       the progress line
    version    what `--version` prints
    units      numbers as people read them
    terminal   escapes whatever strangers wrote

What the commands do is not here: each has a file in `cli.featcache` or `cli.heads`.
"""
