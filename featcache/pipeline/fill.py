"""Encoding plans into one cache, in an environment that is checked once, before the first row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from featcache.imaging.draw import Source
from featcache.imaging.windows import Preprocess
from featcache.pipeline.continuity import Recorder, admit_environment
from featcache.pipeline.encode import Encoder
from featcache.pipeline.passes import Options, Outcome, Pass, Progress
from featcache.pipeline.plan import Plan, cpu_cores
from featcache.pipeline.settings import PassSettings
from featcache.pipeline.timeline import Watch, unwatched
from featcache.store.cache import Cache


@dataclass(kw_only=True)
class Filler:
    """A cache that is locked for writing, and everything that rows are made of."""

    cache: Cache
    encoder: Encoder
    sources: Mapping[int, Source]
    """Row -> its image; rows whose image is gone have none."""
    settings: PassSettings | None
    """Of the cache as it was found; None before its first shard."""
    max_pixels: int
    weights: str = ""
    """As --weights had them."""
    strict: bool = False
    allow_bad: bool = False
    progress: Callable[[Progress], None] | None = None
    say: Callable[[str], None] = lambda _: None
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
        self.encoder.watch = self.watch
        preprocess = Preprocess.of(self.encoder.backbone)
        walk = Pass(plan, self.sources, self.encoder, preprocess, options)
        self.outcomes.append(walk.run(self._recorder))
        for todo in plan.todos:
            self.encoded[todo.ask.name] = self.encoded.get(todo.ask.name, 0) + len(todo.rows)
