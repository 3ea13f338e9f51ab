"""
`python -m build.bench.bulk`: a corpus tagged in bulk against the same texts in this process.

Both on the same cores in interleaved rounds. Of the bulk run the time counts from the first part
begun to the last one ended, as their receipts tell: starting Ray and loading the variant do not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from build.bench.traffic import texts_of
from build.errors import BuildError
from build.figures import Figure, Target, interleave, ratios, table
from models.catalog import open_variant
from models.errors import KadogoError
from models.pipeline import Pipeline

ROOT = Path(__file__).resolve().parents[2]
OF_IN_PROCESS = 0.9
# As the command cuts them.
CHUNK_TEXTS, BATCH_TOKENS = 512, 256
PART_ROWS = 2048
BULK, INSIDE = "in bulk", "in process"
# Ray's workers give way to other processes, whom this process would not.
EAGER = {"RAY_worker_niceness": "0"}


def main(argv: Sequence[str]) -> int:
    """0, or 2 with one line on what went wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m build.bench.bulk",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--catalog", type=Path, default=ROOT / "models" / "zoo")
    parser.add_argument("--variant", default="ner-int8")
    parser.add_argument("--rows", type=int, default=32_768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    asked = parser.parse_args(argv)
    try:
        pipeline = open_variant(asked.catalog / asked.variant)
        known = texts_of(pipeline.variant.task, 1)
        texts = list(itertools.islice(itertools.cycle(known), asked.rows))
        with tempfile.TemporaryDirectory() as folder:
            print(table(_compared(pipeline, texts, Path(folder), asked)))
    except (BuildError, KadogoError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _compared(
    pipeline: Pipeline, texts: Sequence[str], folder: Path, asked: argparse.Namespace
) -> list[Figure]:
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    turns = itertools.count()
    modes = {
        BULK: lambda: _in_bulk(corpus, folder / f"out{next(turns)}", asked),
        INSIDE: lambda: _inside(pipeline, texts, asked.cores),
    }
    found = interleave(modes, asked.rounds)
    name = pipeline.variant.name
    shares = tuple(ratios(found[BULK], found[INSIDE]))
    return [
        *(Figure("bulk", name, mode, "texts/s", rates) for mode, rates in found.items()),
        Figure("bulk", name, f"{BULK} / {INSIDE}", "ratio", shares, Target(OF_IN_PROCESS)),
    ]


def _in_bulk(corpus: Path, out: Path, asked: argparse.Namespace) -> float:
    """Raises BuildError where not all is tagged."""
    words = [str(corpus), "--variant", asked.variant, "--out", str(out)]
    words += ["--workers", str(asked.cores), "--part-rows", str(PART_ROWS)]
    done = subprocess.run(
        [sys.executable, "-m", "service.bulk", "tag", *words],
        cwd=ROOT,
        env=os.environ | EAGER | {"KADOGO_CATALOG": str(asked.catalog.resolve())},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BuildError(done.stderr.strip().rpartition("\n")[2] or "tagging in bulk failed")
    told = [json.loads(file.read_bytes()) for file in (out / "_bulk").glob("*.done.json")]
    began, ended = min(each["began"] for each in told), max(each["ended"] for each in told)
    return float(sum(each["rows"] for each in told) / (ended - began))


def _inside(pipeline: Pipeline, texts: Sequence[str], cores: int) -> float:
    """A thread a core, each its own runs, chunks as large as in bulk."""
    chunks = iter([texts[i : i + CHUNK_TEXTS] for i in range(0, len(texts), CHUNK_TEXTS)])
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                chunk = next(chunks, None)
            if chunk is None:
                return
            pipeline.answer(chunk, batch_tokens=BATCH_TOKENS)

    threads = [threading.Thread(target=work) for _ in range(cores)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(texts) / (time.perf_counter() - began)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
