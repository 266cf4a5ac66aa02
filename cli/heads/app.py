"""`heads`: train, evaluate and compare small heads on cached features."""

from cli.heads.compare import compare
from cli.heads.export import export
from cli.heads.info import info
from cli.heads.list import list_methods
from cli.heads.ls import list_runs
from cli.heads.predict import predict
from cli.heads.rm import rm
from cli.heads.serve import serve
from cli.heads.train import train
from cli.ui import commands, terminal

app = commands.make_app(
    "Train and evaluate small heads on cached features, without the encoder.\n\n"
    "Example: heads train cmm --shots 16"
)
app.command()(train)
app.command("list")(list_methods)
app.command()(compare)
app.command()(predict)
app.command()(export)
app.command()(serve)
app.command("ls")(list_runs)
app.command()(info)
app.command()(rm)


def main() -> None:
    """Run the command line."""
    terminal.run(app)
