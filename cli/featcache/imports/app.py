"""`featcache import`: the list of its formats."""

from cli.featcache.imports.clip_retrieval import clip_retrieval
from cli.featcache.imports.cross_modal import cross_modal
from cli.featcache.imports.folders import FOLDERS
from cli.featcache.imports.npy import npy
from cli.featcache.imports.npz import npz
from cli.featcache.imports.parquet import parquet
from cli.ui import commands

app = commands.App(
    help="Turn other people's features into a cache.\n\n"
    "Example: featcache import npz clip_features.npz --name pets --backbone ViT-B/32",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command()(npz)
app.command()(npy)
app.command()(parquet)
for name in ("tip-adapter", "transclip"):
    app.command(name)(FOLDERS[name])
app.command("cross-modal")(cross_modal)
for name in ("lpclip", "clip-benchmark"):
    app.command(name)(FOLDERS[name])
app.command("clip-retrieval")(clip_retrieval)
