"""
The BentoML service: what is started, in which order it stops, and who answers which path.

Knows nothing of texts or models.
"""

# BentoML's decorators and its Service class carry no types.
# mypy: disallow-untyped-decorators=False, disallow-subclassing-any=False

from __future__ import annotations

import asyncio
import atexit
import contextlib
import inspect
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bentoml
import uvicorn
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from models import catalog
from models.errors import BadSetting
from models.spec import Task
from service import arbiter, bound, logs, metrics, native, routes, shared, tracing
from service import keys as key_files
from service.api import Answers, build
from service.edge import BoundedBody
from service.guard import Guard
from service.keys import KeyChanges, Keys
from service.lanes import Lanes
from service.native import NativeAsk, NativeReply
from service.schemas import State
from service.seen import Watch
from service.settings import Settings

logger = logging.getLogger("kadogo")

# What BentoML itself answers even on the fast path: its client's schema and the native methods.
BENTOML_PATHS = frozenset({"/ner", "/classify", "/schema.json", "/docs.json"})
# What a page of an origin that may ask can send and read: everything, for no cookies are known.
CORS = {"allow_methods": ("GET", "POST"), "allow_headers": ("*",), "expose_headers": ("*",)}
# How long a thread may keep the interpreter from the event loop, in seconds. Model threads give
# it up inside onnxruntime; between runs they hold it for tens of microseconds, and Python's
# default of 5 ms is longer than a whole answer of a small variant.
SWITCH_S = 0.0005
# What the workers share of the file of keys.
KEYS_FILE = "keys.toml"

# How long an idle connection of a caller is kept, in seconds. uvicorn's five are as many as some
# callers' pools keep theirs, and fewer than others' do: one that is closed just as a request is on
# its way resets it, and no caller may send a POST again of himself.
KEEP_S = 75
# An ASGI middleware and its options.
Layer = tuple[Callable[..., ASGIApp], dict[str, Any]]


class Front:
    """
    The ASGI app on the fast path: our routes by themselves, the rest through BentoML's layers.

    BentoML labels its metrics with raw paths, so it sees only those it knows.
    """

    def __init__(self, ours: ASGIApp, bentos: ASGIApp) -> None:
        self._ours = ours
        self._bentos = bentos

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in BENTOML_PATHS:
            await self._ours(scope, receive, send)
        else:
            await self._bentos(scope, receive, send)


def service_options(ours: Starlette, *, fast: bool, layers: Sequence[Layer] = ()) -> dict[str, Any]:
    """
    Keywords for `@bentoml.service` that put `ours` in front of BentoML's app, and `layers`, the
    first outermost, in front of both.

    Empty where `fast` is not wanted or BentoML no longer has the hook, which is its own affair:
    then `ours` must be mounted, with the same handlers and BentoML's cost for each request.
    """
    if not fast:
        return {}
    try:
        from _bentoml_sdk.service import Service
    except ImportError:
        Service = None
    accepted = inspect.signature(bentoml.service).parameters
    if not hasattr(Service, "to_asgi") or "service_class" not in accepted:
        logger.warning("this BentoML has no service_class hook: requests take the slower way")
        return {}

    class Fast(Service):
        def to_asgi(self, is_main: bool = True) -> ASGIApp:
            app: ASGIApp = Front(ours, super().to_asgi(is_main=is_main))
            for layer, layer_options in reversed(layers):
                app = layer(app, **layer_options)
            return app

    return {"service_class": Fast}


def stay_untracked() -> None:
    """BentoML sends no usage data, unless BENTOML_DO_NOT_TRACK says otherwise."""
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    with contextlib.suppress(ImportError, AttributeError):
        # The command line has asked already, before this file was imported.
        from bentoml._internal.utils.analytics import usage_stats

        usage_stats.do_not_track.cache_clear()


def count_apart() -> None:
    """
    Every server counts in a folder of its own, gone with it.

    BentoML's is one for all servers of a home, and each that starts empties it: the others' metrics
    would stand still for ever, and show the newcomer's.
    """
    with contextlib.suppress(ImportError, AttributeError):
        from bentoml._internal.configuration.containers import BentoMLContainer

        folder = f"{BentoMLContainer.prometheus_multiproc_dir.get()}-{os.getpid()}"
        BentoMLContainer.prometheus_multiproc_dir.set(folder)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


def settings_or_exit() -> tuple[Settings, Keys | None]:
    """The settings and the keys they name. A wrong one ends the start with one clear line."""
    try:
        settings = Settings.from_env()
        check_provider(settings.provider)
        bound.check(settings, bound.host())
        if settings.traces:
            tracing.check()
        keys = None if settings.keys is None else keys_of(settings.keys)
        # A worker that comes in place of another does without what the catalog has lost since.
        if settings.routes and not bound.is_worker():
            text = routes.text_of(settings.routes)
            names = [key.name for key in keys.every] if keys else []
            known = routes.Known(variants=catalog.manifests(settings.catalog), keys=names)
            routes.check(routes.read(text), text, known)
    except BadSetting as error:
        sys.exit(f"kadogo: {error}")
    except routes.BadRoutes as error:
        sys.exit(f"kadogo: {settings.routes}: {error}")
    return settings, keys


def keys_of(file: Path) -> Keys:
    """
    Those of the start: a worker that comes in place of another opens to whom the others open,
    whatever became of the file since. Raises `BadSetting`.
    """
    if bound.is_worker():
        text = shared.first_of_this_server(KEYS_FILE, lambda: key_files.text_of(file))
    else:
        text = key_files.text_of(file)
    return key_files.read(file, text)


def layers_of(
    settings: Settings, keys: Keys | None, changes: Callable[[], KeyChanges]
) -> list[Layer]:
    """
    What stands before every path, the first outermost.

    changes  of the keys, while the server serves

    A browser asks whether it may, without a key, before it sends one: so origins come before keys.
    """
    layers: list[Layer] = [(Watch, {"access": settings.access_log})]
    if settings.cors_origins:
        layers.append((CORSMiddleware, {**CORS, "allow_origins": settings.cors_origins}))
    if keys is not None:
        layers.append((Guard, {"keys": keys, "changes": changes}))
    return layers


def check_provider(provider: str) -> None:
    """
    Raises `BadSetting` for one this host lacks.

    Asked for before there are workers: one that fails alone leaves a server that is never ready.
    Every onnxruntime has the default, so for that one the parent need not load it.
    """
    if provider == Settings().provider:
        return
    from models import runtime_onnx
    from models.session import SessionOptions

    try:
        runtime_onnx.providers(SessionOptions(provider=provider))
    except BadSetting as error:
        raise BadSetting(f"KADOGO_PROVIDER: {error}") from None


stay_untracked()
count_apart()
arbiter.mind_workers()
arbiter.replace_the_dead()
logging.getLogger("bentoml._internal.server.http_app").addFilter(native.ServerMistakes())
settings, keys = settings_or_exit()
logs.begin(settings.log)
if settings.crowded and not bound.is_worker():
    logger.warning(settings.crowded)
lanes = Lanes(settings, bound.address())
layers = layers_of(settings, keys, lambda: lanes.key_changes)
answers = Answers(lanes, settings, keys)
ours = build(answers)
options = service_options(ours, fast=settings.fast_path, layers=layers)


@bentoml.service(
    name="kadogo",
    workers=settings.workers,
    traffic={"timeout": settings.deadline_ms / 1000 + 5},
    metrics={"enabled": False},  # its labels are raw paths; /metrics is ours
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
    # distro="none": BentoML's own would add a compiler and git to the image, 600 MB of them.
    image=bentoml.images.Image(base_image="python:3.11-slim", distro="none"),
    **options,
)
class Kadogo:
    """Named entities and topics of texts in African languages. The whole API: /docs."""

    @bentoml.on_startup
    async def start(self) -> None:
        """
        Begin to load; /readyz says when that is done.

        A worker that comes in place of one that died takes no request before it can answer: the
        others do. Of a server that starts none can, and it says so.
        """
        logger.setLevel(logging.INFO)
        sys.setswitchinterval(SWITCH_S)
        metrics.begin()
        keep_connections()
        if settings.traces:
            tracing.begin(settings.traces, settings.traces_share)
        unready_before_exit(lanes, settings.drain_s)
        lanes.start()
        if lanes.others_serve:
            await lanes.loaded()
            if lanes.state is State.FAILED:
                sys.exit(f"kadogo: {lanes.reason}: this worker gives way to those that serve")

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """Every accepted request has been answered by now."""
        await lanes.close()
        await tracing.end()
        metrics.end()

    async def __is_ready__(self) -> bool:
        return lanes.unready is None

    @bentoml.api(input_spec=NativeAsk, output_spec=NativeReply)
    async def ner(self, ctx: bentoml.Context, **ask: Any) -> Any:
        """People, places, organisations and dates in texts."""
        return await native.reply(answers, Task.NER, ask, ctx)

    @bentoml.api(input_spec=NativeAsk, output_spec=NativeReply)
    async def classify(self, ctx: bentoml.Context, **ask: Any) -> Any:
        """The topic of texts."""
        return await native.reply(answers, Task.CLASSIFICATION, ask, ctx)


made: Any = Kadogo  # by now a BentoML service, not the class above
if not options:
    for layer, layer_options in layers:
        made.add_asgi_middleware(layer, **layer_options)
made.add_asgi_middleware(
    BoundedBody, max_body=settings.max_body, body_s=settings.body_s, json=BENTOML_PATHS
)
if not options:
    made.mount_asgi_app(ours, path="/")


def keep_connections() -> None:
    """Idle ones for longer than callers' pools do, unless --timeout-keep-alive says otherwise."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    config: Any = getattr(
        server, "config", None
    )  # uvicorn's; its connections read it as they begin
    usual = inspect.signature(uvicorn.Config).parameters["timeout_keep_alive"].default
    if getattr(config, "timeout_keep_alive", None) == usual:
        config.timeout_keep_alive = KEEP_S


def unready_before_exit(lanes: Lanes, drain_s: float) -> None:
    """
    At SIGTERM say "not ready", and only `drain_s` later let the server close its door.

    uvicorn has set its handler by now; ours goes before it and calls it when the time has come.
    """
    loop = asyncio.get_running_loop()
    close_door = signal.getsignal(signal.SIGTERM)

    def drain() -> None:
        lanes.drain()
        logger.info("stopping: not ready now, the door closes in %g s", drain_s)
        if callable(close_door):
            loop.call_later(drain_s, close_door, signal.SIGTERM, None)

    with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
        # Not in the main thread, as in a test: there is no signal to come.
        loop.add_signal_handler(signal.SIGTERM, drain)
