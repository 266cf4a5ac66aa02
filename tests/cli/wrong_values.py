"""What no option or argument can mean, by command, and command lines that are right without it."""

MISSING, FILE, FOLDER = "{place}/missing", "{place}/file.bin", "{place}/folder"
WHOLE = ("x", "-1", "1.5", "", "99999999999999999999")
POSITIVE = (*WHOLE, "0")
COUNT = ("x", "-1", "0", "1.5", "")
CACHE = (FILE, f"{FILE}/below", "")
SHARE = ("x", "0", "1", "nan", "")
NAME = ("nobody", "")
WORDS = (MISSING, FOLDER, FILE, "")
OLD_CACHE = {"--backbone": NAME, "--key": ("zz", "ffffffffffff", ""), "--cache": CACHE}
ANY_CACHE = {"DATASET": NAME, "--dataset": NAME, **OLD_CACHE}
IMPORTED = {
    "--name": ("../escape", "a/b", ".", ""),
    "--backbone": ("",),
    "--dataset": NAME,
    "--texts": (*WORDS,),
    "--weights": (),  # read only where texts are encoded
    "--cache": CACHE,
}
FOLDERS = {"FOLDER": (MISSING, FILE, ""), **IMPORTED}

WRONG: dict[str, dict[str, tuple[str, ...]]] = {
    "featcache extract": {
        "--backbone": NAME,
        "--dataset": ("nobody", "folder:", f"folder:{MISSING}", f"folder:{FILE}", "nobody:x", ""),
        "--weights": (MISSING, FOLDER, FILE, "nobody", ""),
        "--patches": ("nobody", "clearclip:int9", "clearclip@nobody", ""),
        "--views": ("x", "-1", "0", "2:nobody", "2@nobody", "2:rrc50@few-shot(0,seeds=1)", ""),
        "--crops": ("x", "-1", "0", "2:nobody", "2@nobody", ""),
        "--tokens": ("x", "last-blok", "last-block:fp8", "last-block@nobody", ""),
        "--view-patches": ("x", "-1", "0", "2:nobody", "2@nobody", ""),
        "--seed": WHOLE,
        "--name": ("../escape", "a/b", ".", ""),
        "--dataset-root": (MISSING, FILE, ""),
        "--data-root": (FILE, f"{FILE}/below", ""),
        "--tokenizer": (MISSING, ""),
        "--image-size": ("x", "-1", "0", "1.5", "7", "9999999999", ""),
        "--splits": ("nobody", ""),
        "--words": ("nobody", ""),
        "--templates": WORDS,
        "--descriptions": WORDS,
        "--cupl": WORDS,
        "--dclip": WORDS,
        "--waffle": ("x", "-1", "1.5", ""),
        "--prompts": WORDS,
        "--limit": COUNT,
        "--device": ("nobody", "meta", "cuda:x", ""),
        "--compute": ("fp8", ""),
        "--micro-batch": POSITIVE,
        "--cache": CACHE,
        "--max-pixels": COUNT,
        "--profile-to": (FOLDER, f"{MISSING}/trace.json", ""),
    },
    "featcache ls": {"--cache": CACHE},
    "featcache info": ANY_CACHE,
    "featcache search": {
        "TEXT|IMAGE": ("", "missing.png"),
        "--text": ("",),
        "--image": (MISSING, FOLDER, FILE, ""),
        "--class": (*NAME, "99"),
        "--row": NAME,
        "--in": ("nobody", "blobs,nobody", "blobs,blobs", ",", ""),
        "--k": (*COUNT, "10001"),
        "--split": NAME,
        "--sheet": (f"{MISSING}/a.html", FOLDER, FILE, ""),
        "--key": ("zz", ""),
        "--weights": (MISSING, FILE, "nobody", ""),
        "--tokenizer": (MISSING, ""),
        "--device": ("nobody", "meta", ""),
        "--cache": CACHE,
    },
    "featcache verify": {**ANY_CACHE, "--runs": (MISSING, FILE, "")},
    "featcache repair": {**ANY_CACHE, "--weights": ("",), "--device": ("",)},
    "featcache rm": {"DATASET": NAME, **OLD_CACHE},
    "featcache gc": {"--cache": CACHE, "--runs": (FILE, "")},
    "featcache export": {
        **ANY_CACHE,
        "--to": NAME,
        "--out": (FOLDER, f"{FILE}/below", ""),
        "--splits": NAME,
        "--projection": NAME,
        "--neighbors": ("x", "-1", "1.5", "1001", ""),
        "--thumbnails": ("x", "-1", "1.5", "1025", ""),
        "--run": ("nobody", MISSING, FOLDER, FILE, ""),
        "--runs": (FILE, ""),
    },
    "featcache corpus build": {
        "NAME": ("../x", "A b", ""),
        "--for": NAME,
        "--from": ("nobody", "blobs:nobody", "blobs:", "blobs", ",", ""),
        "--by": NAME,
        "--of": NAME,
        "--recipe": NAME,
        "--k": POSITIVE,
        "--min-cosine": ("x", "2", "nan", ""),
        "--margin": ("x", "-1", "nan", ""),
        "--text": NAME,
        "--shots": ("x", "-1", "0", "1.5", "all", ""),
        "--seeds": ("x", "0", "3-1", ""),
        "--sheet": (FOLDER, FILE, f"{MISSING}/sheet.html", ""),
        **OLD_CACHE,
    },
    "featcache text": {
        "DATASET": NAME,
        "--kind": NAME,
        "--export": (FOLDER, f"{MISSING}/texts.json", ""),
        "--use": ("zz", "ffffffffffff", ""),
        "--url": ("x", ""),
        "--model": ("x", ""),
        "--per-class": COUNT,
        "--instructions": (MISSING, FOLDER, ""),
        **OLD_CACHE,
    },
    "featcache index build": {
        "--of": NAME,
        "--caches": ("nobody", "blobs,", ""),
        "--kind": NAME,
        "--name": ("../x", "a/b", ""),
        "--recipe": NAME,
        "--set": ("x", "nobody=1", ""),
        **OLD_CACHE,
    },
    "featcache index add": {"NAME": NAME, "--cache": CACHE},
    "featcache index ls": {"--cache": CACHE},
    "featcache index rm": {"NAME": NAME, "--cache": CACHE},
    "featcache index verify": {"NAME": NAME, "--cache": CACHE},
    "featcache corpus ls": {"--for": NAME, **OLD_CACHE},
    "featcache corpus info": {
        "NAME": NAME,
        "--for": NAME,
        "--sheet": (FOLDER, FILE, f"{MISSING}/sheet.html", ""),
        **OLD_CACHE,
    },
    "featcache corpus rm": {"NAME": NAME, "--for": NAME, **OLD_CACHE},
    "featcache datasets": {
        "NAME": NAME,
        "--cache": CACHE,
        "--data-root": (FILE, f"{FILE}/below", ""),
    },
    "featcache backbones": {"PATTERN": ("nobody",)},
    "featcache doctor": {"--cache": CACHE},
    "featcache import npz": {
        "FILE": (MISSING, FOLDER, FILE, ""),
        "--name": ("../escape", "a/b", ".", ""),
        "--backbone": ("",),
        "--cache": CACHE,
    },
    "featcache import npy": {**FOLDERS, "--dtype": (), "--dim": ()},  # of raw arrays only
    "featcache import parquet": {
        "SPLIT=FILE...": (f"test={MISSING}", f"test={FILE}", "nobody", ""),
        **IMPORTED,
        "--features-column": ("nobody",),
        "--label-column": ("nobody",),
        "--path-column": ("nobody",),
        "--split-column": ("nobody",),
    },
    "featcache import tip-adapter": FOLDERS,
    "featcache import transclip": FOLDERS,
    "featcache import cross-modal": {**FOLDERS, "--seed": ()},
    "featcache import lpclip": FOLDERS,
    "featcache import clip-benchmark": FOLDERS,
    "featcache import clip-retrieval": {
        "SPLIT=FOLDER...": (f"test={MISSING}", f"test={FILE}", "nobody", ""),
        **IMPORTED,
        "--label-column": ("nobody",),
    },
    "heads train": {
        "METHOD": NAME,
        "--shots": ("x", "-1", "0", "1.5", "9999999999", ""),
        "--dataset": NAME,
        "--backbone": NAME,
        "--key": ("zz", ""),
        "--texts": ("zz", "ffffffffffff", ""),
        "--seeds": ("x", "-1", "0", "3-1", "1,1", "1.5", "1-9999", ""),
        "--split": ("nobody", "test,nobody", ",", ""),
        "--selection": NAME,
        "--calibrate-on": NAME,
        "--protocol": NAME,
        "--ways": ("x", "-1", "0", "1", "1.5", "99", "99999999999999999999", ""),
        "--queries": ("x", "-1", "0", "1.5", "9999", ""),
        "--episodes": ("x", "-1", "0", "1.5", "999999999", ""),
        "--seed": ("x", "1.5", "9" * 25, ""),
        "--episode-list": (MISSING, FOLDER, FILE, ""),
        "--batch": ("x", "-1", "0", "1.5", "99999999999999999999", ""),
        "--effective-classes": ("x", "-1", "0", "4-1", "0-4", "1-2-3", "1.5", ""),
        "--correlation": ("x", "-1", "0", "nan", "inf", ""),
        "--repeats": ("x", "-1", "0", "1.5", "999999999", ""),
        "--order-list": (MISSING, FOLDER, FILE, ""),
        "--set": ("nobody=1", "lam", "=1", "lam=", "lam=x", "lam=-1", "lam=nan", ""),
        "--class-weights": ("nobody", "1,2", ""),
        "--augment": (
            "nobody",
            "corpus:",
            "corpus:nobody",
            "corpus:a:weight=0",
            "corpus:a:weight=x",
            "corpus:a:mass=1",
            "corpus:a:weight=inf",
            "",
        ),
        "--support": ("nobody", "long-tail:", "long-tail:2", "counts:1,2", f"counts:{MISSING}", ""),
        "--device": ("nobody", "meta", ""),
        "--cache": CACHE,
        "--runs": (FILE, f"{FILE}/below", ""),
    },
    "heads list": {},
    "heads export": {
        "RUN|FILE": ("nobody", "nobody@1", MISSING, FOLDER, FILE, ""),
        "--to": ("onx", ""),
        "--backbone": (),  # read only where the backbone is exported, too
        "--weights": (),
        "--out": (FOLDER, FILE, ""),
        "--runs": (FILE, ""),
    },
    "heads compare": {
        "--dataset": NAME,
        "--backbone": NAME,
        "--split": NAME,
        "--shots": ("x", "-1", "0", "1.5", "7", ""),
        "--against": NAME,
        "--metric": NAME,
        "--cache": ("",),
        "--runs": (MISSING, FILE, ""),
    },
    "heads predict": {
        "RUN|FILE": ("nobody", MISSING, FOLDER, FILE, ""),
        "PATH...": (FOLDER, f"folder:{MISSING}", f"csv:{MISSING}", f"zip:{FILE}", "nobody:x", ""),
        **{option: OLD_CACHE[option] for option in OLD_CACHE},
        "--dataset": NAME,
        "--split": NAME,
        "--column": NAME,
        "--labels": NAME,
        "--weights": (MISSING, FOLDER, FILE, "nobody"),
        "--top": COUNT,
        "--coverage": SHARE,
        "--rule": NAME,
        "--reject": SHARE,
        "--format": NAME,
        "--out": (MISSING, FOLDER, ""),
        "--device": ("nobody", "meta", "cuda:x", ""),
        "--runs": (FILE, ""),
    },
    "heads serve": {
        "RUN|FILE": ("nobody", MISSING, FOLDER, FILE, ""),
        "--host": ("nobody.invalid", "http://x", ""),
        "--micro-batch": POSITIVE,
        "--port": ("x", "-1", "65536", "1.5", ""),
        "--allow-host": ("http://lab.example", "lab:80", "a b", ""),
        "--backbone": NAME,
        "--weights": (MISSING, FOLDER, FILE, "nobody"),
        "--top": COUNT,
        "--coverage": SHARE,
        "--rule": NAME,
        "--reject": SHARE,
        "--device": ("nobody", "meta", "cuda:x", ""),
        "--runs": (FILE, ""),
    },
    "heads ls": {"--dataset": NAME, "--method": NAME, "--runs": (FILE, "")},
    "heads info": {"RUN|FILE": ("nobody", MISSING, FILE, ""), "--runs": (FILE, "")},
    "heads rm": {"RUN...": ("nobody", "nobody@1", ""), "--runs": (FILE, "")},
}
"""Command -> option or argument -> values that it cannot mean."""

RIGHT: dict[str, list[str]] = {
    "featcache extract": [
        "--backbone", "tiny", "--weights", "random", "--dataset", "folder:{photos}", "--quiet",
        "--dry-run",
    ],
    "featcache import npz": ["{place}/good.npz", "--name", "other", "--backbone", "B"],
    "featcache rm": ["blobs"],
    "featcache export": ["--quiet"],
    "featcache corpus build": [
        "wild", "--for", "blobs", "--from", "blobs:train", "--k", "2", "--quiet",
    ],
    "featcache corpus info": ["wild"],
    "featcache text": ["blobs"],
    "featcache index build": ["--quiet"],
    "featcache index add": ["mine"],
    "featcache index rm": ["mine"],
    "featcache index verify": ["mine"],
    "featcache corpus rm": ["wild"],
    "heads train": ["ridge", "--shots", "2", "--dataset", "blobs", "--quiet"],
    "heads predict": ["{place}/good.head", "{photos}"],
    "heads export": ["nobody"],
    "heads serve": ["last"],
    "heads info": ["last"],
    "heads rm": ["nobody", "--yes"],
}  # fmt: skip
"""Command -> arguments that it understands, to which the wrong one is added."""

EPISODIC = ["--protocol", "episodic"]
SMALL = ["--ways", "2", "--shots", "1", "--queries", "1"]
BESIDE = {
    ("featcache extract", "--dataset-root"): ["--dataset", "eurosat"],
    ("featcache export", "--runs"): ["--run", "nobody"],
    ("featcache text", "--export"): ["--kind", "template"],  # the kind that is there
    ("featcache extract", "--data-root"): ["--dataset", "eurosat"],
    ("featcache extract", "--splits"): ["--dataset", "eurosat"],
    ("featcache extract", "--words"): ["--dataset", "eurosat"],
    ("heads train", "--episode-list"): EPISODIC,
    ("heads predict", "PATH..."): ["{place}/good.head"],
    **{
        ("featcache search", option): ["--text", "a dog"]
        for option in (
            *("--in", "--k", "--split", "--sheet", "--key"),
            *("--weights", "--tokenizer", "--device", "--cache"),
        )
    },
    **{
        ("heads train", option): [*EPISODIC, *SMALL]
        for option in ("--ways", "--queries", "--episodes", "--seed")
    },
}
"""Command and option -> what has to stand beside it."""

NO_SHOTS = ["zero-shot", "--dataset", "blobs", "--quiet", "--protocol"]
INSTEAD = {
    ("heads train", "--correlation"): [*NO_SHOTS, "stream", "--batch", "2"],
    **{
        ("heads train", option): [*NO_SHOTS, "batches"]
        for option in ("--batch", "--effective-classes", "--repeats", "--order-list")
    },
    **{
        ("heads predict", option): ["{place}/good.head", "--dataset", "blobs"]
        for option in ("--dataset", "--backbone", "--key", "--split")
    },
    ("heads predict", "--weights"): ["last", "{photos}"],
    ("heads predict", "--runs"): ["last", "{photos}"],
}
"""Command and option -> arguments in place of RIGHT, whose protocol lacks the option."""
