"""Every call of a module in the process, told to those who watch.

Hooks of all modules tell as much, but with any of them torch calls every module in a way that takes several times as
long as a small module does. So it is ``torch.nn.Module.__call__`` that is replaced, as torch.fx does to trace a model,
and torch.compile expects.
"""

from __future__ import annotations

import threading
from typing import Any, Protocol

from torch import nn

from flopcuda import _C


class Watcher(Protocol):
    """Is told of calls from :func:`watch` on until :func:`unwatch`, in the thread that makes them.

    Attributes:
        unseen: those modules of whose calls it is not told, as long as it watches alone; None to be told of all.
    """

    unseen: _C.UnseenModules | None

    def enter(self, module: nn.Module) -> None:
        """A call begins, before any hook."""

    def leave(self, module: nn.Module) -> None:
        """It ends, behind all hooks, be it by an exception."""


_lock = threading.Lock()
_watchers: tuple[Watcher, ...] = ()
_call = nn.Module.__call__  # that which _replacement stands for
_replacement: Any = None


def _watched_call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
    watchers = _watchers
    for watcher in watchers:
        watcher.enter(self)
    try:
        return _call(self, *args, **kwargs)
    finally:
        for watcher in reversed(watchers):
            watcher.leave(self)


def watch(watcher: Watcher) -> None:
    """From now on."""
    global _call, _replacement
    with _lock:
        if not _watchers and nn.Module.__call__ is not _replacement:
            _call = nn.Module.__call__
            _replacement = _C.module_call(_call)
            nn.Module.__call__ = _replacement  # type: ignore[method-assign]
        _tell((*_watchers, watcher))


def unwatch(watcher: Watcher) -> None:
    """No longer. The last one leaves torch as it was, or, where another has replaced the call since, a call that tells
    nobody. Does nothing the second time.
    """
    with _lock:
        _tell(tuple(other for other in _watchers if other is not watcher))
        if not _watchers and nn.Module.__call__ is _replacement:
            nn.Module.__call__ = _call  # type: ignore[method-assign]


def _tell(watchers: tuple[Watcher, ...]) -> None:
    global _watchers
    _watchers = watchers
    _C.watch_calls(_watched_call if watchers else None, watchers[0].unseen if len(watchers) == 1 else None)
