"""What Python has removed since the old pips of test_matrix.py were released; on PYTHONPATH it is imported before them.

Nothing here touches how they ask, read or choose: aliases of `collections` (gone in 3.10), `imp`, `distutils` (setuptools
has it), `pkgutil.ImpImporter` and finders without `find_spec` (3.12), `cgi` (3.13; legacy-cgi has it).
"""

from __future__ import annotations

import collections
import collections.abc
import importlib.util
import pkgutil
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

for name in collections.abc.__all__:
    if not hasattr(collections, name):
        setattr(collections, name, getattr(collections.abc, name))


class OldFinders:
    """Asks the finders that only have `find_module`: six made such ones."""

    @staticmethod
    def find_spec(name: str, path: object = None, _target: object = None) -> ModuleSpec | None:
        finders: list[Any] = [each for each in sys.meta_path if not hasattr(each, "find_spec")]
        for finder in finders:
            if loader := finder.find_module(name, path):
                loader.create_module = lambda spec, loader=loader: loader.load_module(spec.name)
                loader.exec_module = lambda _module: None
                return importlib.util.spec_from_loader(name, loader)
        return None


if sys.version_info >= (3, 12):
    import _distutils_hack

    _distutils_hack.add_shim()
    pkgutil.ImpImporter = type("ImpImporter", (), {})
    imp: Any = ModuleType("imp")
    imp.get_suffixes = list
    sys.modules["imp"] = imp
    sys.meta_path.append(OldFinders)
