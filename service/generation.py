"""
What was changed at run time, as numbered generations in a folder that every worker reads.

One is never edited: a change is the next number, and going back is a change too. Knows nothing of
what routes or variants are.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

import msgspec

from models.errors import NotReady
from models.spec import Value
from service.keys import UNCHANGED, KeyChanges

# Generations that are kept to go back to.
KEPT = 100


class Load(Value, frozen=True):
    """What is to serve under a name since it was loaded, and how often it has been."""

    digest: str
    times: int = 1


class Verdict(Value, frozen=True, kw_only=True):
    """
    How the trial of a route ended: the variant answers all of its callers, or none of them.

    routes  which it is of (`Content.routes_of`): of others it says nothing
    """

    variant: str
    promoted: bool
    why: str
    routes: str = ""


class Content(Value, frozen=True, kw_only=True):
    """
    All that can be changed at run time.

    routes    as TOML; None: as the settings say
    routed    how often they were changed
    trials    how often trials began anew, as they do with each change of routes and with each
              going back; never turned back itself
    unloaded  names of variants that are not to serve
    loads     of variants that were loaded after the start, by name
    verdicts  of trials that ended, by the name of the route
    checks    how often every variant was to prove itself again
    keys      which were revoked, and what others may send
    """

    routes: str | None = None
    routed: int = 0
    trials: int = 0
    unloaded: tuple[str, ...] = ()
    loads: dict[str, Load] = msgspec.field(default_factory=dict)
    verdicts: dict[str, Verdict] = msgspec.field(default_factory=dict)
    checks: int = 0
    keys: KeyChanges = UNCHANGED

    def restored(self, now: Content) -> Content:
        """
        As it was, save that what was revoked since stays so: going back lets nobody in again. A
        trial that goes on again counts from 0: what ended it may have been what is gone back from.
        """
        keys = msgspec.structs.replace(self.keys, revoked=now.keys.revoked)
        same = (self.routes, self.routed, self.verdicts) == (now.routes, now.routed, now.verdicts)
        trials = now.trials if same else now.trials + 1
        return msgspec.structs.replace(self, keys=keys, trials=trials)

    def routes_of(self, text: str | None) -> str:
        """Tells these routes from all that were before: `text` is theirs, as it is in force."""
        digest = blake2b((text or "").encode(), digest_size=6).hexdigest()
        return f"{self.routed}-{digest}"


class Generation(Value, frozen=True, kw_only=True):
    """The content, and who changed what, when (UTC). Number 0 is nothing changed yet."""

    number: int = 0
    when: str = ""
    who: str = ""
    what: str = ""
    content: Content = Content()


# What a worker that still loads has taken over.
LOADING = -1


class Taken(Value, frozen=True, kw_only=True):
    """
    The last generation a worker took over, or the `error` for which it could not.

    serves  whether it answers at all
    """

    number: int
    error: str | None = None
    serves: bool = True


class Unreadable(NotReady):
    """A generation that this code cannot read: what was changed is not known."""


class Generations:
    """
    The folder. Safe to use from any number of processes at once.

    workers  folder where those of one server say what they took over; other servers may read the
             same generations

    Raises OSError where a folder cannot be written, and says nothing of its own.
    """

    def __init__(self, folder: Path, workers: Path | None = None) -> None:
        self.folder = folder
        self._numbered = folder / "generations"
        self._workers = workers or folder / "workers"
        for each in (self._numbered, self._workers):
            each.mkdir(parents=True, exist_ok=True)

    @property
    def newest(self) -> int:
        return max(self._numbers(), default=0)

    def current(self) -> Generation:
        return self.read(self.newest)

    def read(self, number: int) -> Generation:
        """
        Raises KeyError where there is none of that number, or none any more, and `Unreadable`.
        """
        if number == 0:
            return Generation()
        file = self._file(number)
        try:
            return msgspec.json.decode(file.read_bytes(), type=Generation)
        except FileNotFoundError:
            raise KeyError(number) from None
        except msgspec.DecodeError as error:
            raise Unreadable(
                f"{file} is no generation of this version ({error}): start the version that wrote "
                "it, or move the file away to do without that change"
            ) from None

    def history(self) -> list[Generation]:
        """Those that are kept, the newest first."""
        found = []
        for number in sorted(self._numbers(), reverse=True):
            with contextlib.suppress(KeyError):  # it was let go of just now
                found.append(self.read(number))
        return found

    def change(
        self, into: Callable[[Content], Content], *, who: str, what: str
    ) -> tuple[Generation, Generation]:
        """
        Make of the newest content the next. Gives both generations; where nothing differs they
        are the same one.
        """
        with self._alone():
            before = self.current()
            content = into(before.content)
            if content == before.content:
                return before, before
            after = Generation(
                number=before.number + 1,
                when=datetime.now(UTC).isoformat(timespec="seconds"),
                who=who,
                what=what,
                content=content,
            )
            _write(self._file(after.number), msgspec.json.encode(after))
            for number in self._numbers():
                if number <= after.number - KEPT:
                    self._file(number).unlink(missing_ok=True)
            return before, after

    def take(self, number: int, error: str | None = None, *, serves: bool = True) -> None:
        """
        This process took over that generation, or could not, and whether it answers at all.

        It is of the living alone and need not outlast them; and whoever waits here for a busy disk
        waits on the event loop.
        """
        file = self._workers / f"{os.getpid()}.json"
        taken = Taken(number=number, error=error, serves=serves)
        _write(file, msgspec.json.encode(taken), lasting=False)

    def leave(self) -> None:
        """This process takes no more."""
        (self._workers / f"{os.getpid()}.json").unlink(missing_ok=True)

    def taken(self) -> dict[int, Taken]:
        """Of each process that lives."""
        found = {}
        for file in self._workers.glob("*.json"):
            process = int(file.stem)
            if not _lives(process):
                file.unlink(missing_ok=True)
                continue
            with contextlib.suppress(FileNotFoundError):  # it left just now
                found[process] = msgspec.json.decode(file.read_bytes(), type=Taken)
        return found

    def _numbers(self) -> list[int]:
        # Not glob, to which a folder that is away is an empty one.
        return [int(each.stem) for each in self._numbered.iterdir() if each.stem.isdigit()]

    def _file(self, number: int) -> Path:
        return self._numbered / f"{number:08}.json"

    @contextlib.contextmanager
    def turn(self) -> Iterator[Callable[[], None]]:
        """
        One change at a time, until every worker has taken it over or it is taken back.

        Gives what to call to wait for the turn, in a thread: it may be long in coming.
        """
        with (self.folder / "turn").open("w") as lock:
            yield lambda: fcntl.flock(lock, fcntl.LOCK_EX)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # let go as the file is closed
            yield


def _write(file: Path, content: bytes, *, lasting: bool = True) -> None:
    """Whole or not at all; where it must be `lasting`, also where the power goes."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    with draft.open("wb") as opened:
        opened.write(content)
        opened.flush()
        if lasting:
            os.fsync(opened.fileno())
    os.replace(draft, file)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
