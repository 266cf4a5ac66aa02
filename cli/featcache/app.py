"""`featcache`: encode a data set once, look after the cache."""

from cli.featcache.backbones import backbones
from cli.featcache.datasets import datasets
from cli.featcache.doctor import doctor
from cli.featcache.extract import extract
from cli.featcache.import_npz import npz
from cli.featcache.info import info
from cli.featcache.ls import list_caches
from cli.featcache.repair import repair
from cli.featcache.rm import rm
from cli.featcache.verify import RunsAlone, verify
from cli.ui import commands, terminal

app = commands.make_app(
    "Encode a data set once with a CLIP-like model and keep the features in a checked cache.\n\n"
    "Example: featcache extract --backbone ViT-B/16 --dataset eurosat"
)
imports = commands.App(
    help="Turn other people's features into a cache.\n\n"
    "Example: featcache import npz clip_features.npz --name pets --backbone ViT-B/32",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command()(extract)
app.command("ls")(list_caches)
app.command(cls=RunsAlone)(verify)
for command in (info, repair, rm, datasets, backbones, doctor):
    app.command()(command)
app.add_typer(imports, name="import")
imports.command()(npz)


def main() -> None:
    """Run the command line."""
    terminal.run(app)
