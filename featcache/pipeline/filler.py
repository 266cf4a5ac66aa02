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
    """Runs passes over a locked cache; the first one checks the environment."""

    cache: Cache
    encoder: Encoder
    sources: Mapping[int, FileSource]
    """Row -> its image; rows whose image is gone have none."""
    settings: PassSettings | None
    """Settings of the cache; None before its first shard."""
    max_pixels: int
    weights: str = ""
    """The weights that the user named; empty if none were."""
    strict: bool = False
    allow_bad: bool = False
    progress: Callable[[Progress], None] | None = None
    say: Callable[[Part], None] = lambda _: None
    watch: Watch = unwatched
    """Called after each piece of work of a stage."""
    outcomes: list[Outcome] = field(default_factory=list)
    """Results of the passes so far."""
    encoded: dict[str, int] = field(default_factory=dict)
    """Component -> rows encoded so far."""
    _recorder: Recorder | None = None

    def encode(self, plan: Plan, *, mended: frozenset[int] = frozenset()) -> None:
        """Encode the rows of a plan; finished shards stay after an error.

        Args:
            plan: Rows to encode; each has an image.
            mended: Rows whose image could not be read before and can be now.

        Raises:
            CacheError: If this environment gives other features than those that are stored.
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
