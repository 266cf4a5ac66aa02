"""`featcache`: encode a data set once, look after the cache."""

from cli.featcache.backbones import backbones
from cli.featcache.corpus import app as corpus
from cli.featcache.datasets import datasets
from cli.featcache.doctor import doctor
from cli.featcache.extract import extract
from cli.featcache.gc import gc
from cli.featcache.imports.app import app as imports
from cli.featcache.index import app as index
from cli.featcache.info import info
from cli.featcache.ls import list_caches
from cli.featcache.repair import repair
from cli.featcache.rm import rm
from cli.featcache.search import search
from cli.featcache.text import text
from cli.featcache.verify import RunsAlone, verify
from cli.ui import commands, terminal

app = commands.make_app(
    "Encode a data set once with a CLIP-like model and keep the features in a checked cache.\n\n"
    "Example: featcache extract --backbone ViT-B/16 --dataset eurosat"
)
app.command()(extract)
app.command("ls")(list_caches)
app.command(cls=RunsAlone)(verify)
for command in (info, search, text, repair, rm, gc, datasets, backbones, doctor):
    app.command()(command)
app.add_typer(imports, name="import")
app.add_typer(corpus, name="corpus")
app.add_typer(index, name="index")


def main() -> None:
    """Run the command line."""
    terminal.run(app)
