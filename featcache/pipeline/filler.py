"""The passes of one request over a locked cache, in an environment that is checked once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from featcache.encoding.encoder import Encoder, Watch, unwatched
from featcache.imaging.loader import FileSource
from featcache.pipeline.compatibility import PassSettings, admit_environment
from featcache.pipeline.passes import Options, Outcome, Pass
from featcache.pipeline.plan import Plan
from featcache.pipeline.progress import Progress
from featcache.pipeline.write import Recorder
from featcache.store.cache import Cache
from featcache.threads import cpu_cores
from featcache.wording import Part


@dataclass(kw_only=True)
class Filler:
    """A cache that is locked for writing, and everything that rows are made of."""

    cache: Cache
    encoder: Encoder
    sources: Mapping[int, FileSource]
    """Row -> its image; rows whose image is gone have none."""
    settings: PassSettings | None
    """Settings of the cache as it was found; None before its first shard."""
    max_pixels: int
    weights: str = ""
    """The weights that the user named; empty if none were."""
    strict: bool = False
    allow_bad: bool = False
    progress: Callable[[Progress], None] | None = None
    say: Callable[[Part], None] = lambda _: None
    watch: Watch = unwatched
    """Told what each stage does and when."""
    outcomes: list[Outcome] = field(default_factory=list)
    """What came of each plan so far."""
    encoded: dict[str, int] = field(default_factory=dict)
    """Component -> rows so far."""
    _recorder: Recorder | None = None

    def encode(self, plan: Plan, *, mended: frozenset[int] = frozenset()) -> None:
        """Encode what a plan holds; finished shards stay, whatever happens.

        Args:
            plan: Its rows have an image each.
            mended: Rows that could not be read before, and can be now.

        Raises:
            CacheError: If this environment gives other numbers than those that are stored.
            SourceError: If an image is unreadable under `strict`, or too many are.
        """
        if not len(plan.rows):
            return
        if self._recorder is None:
            self._recorder = admit_environment(
                self.cache,
                self.settings,
                self.encoder,
                self.sources,
                max_pixels=self.max_pixels,
                weights=self.weights,
                say=self.say,
            )
        options = Options(
            threads=cpu_cores(),
            max_pixels=self.max_pixels,
            strict=self.strict,
            allow_bad=self.allow_bad,
            known_bad=frozenset(self.cache.bad_rows()) & self.sources.keys() - mended,
            progress=self.progress,
            watch=self.watch,
        )
        self.outcomes.append(Pass(plan, self.sources, self.encoder, options).run(self._recorder))
        for todo in plan.todos:
            self.encoded[todo.spec.name] = self.encoded.get(todo.spec.name, 0) + len(todo.rows)
