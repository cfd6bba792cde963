"""Builds the package: PEP 517 and PEP 660 with the standard library alone.

``pip install ./python`` makes a fresh environment for whatever backend a project names, and downloads it. This package is pure Python, and
has to install where there is no network: so it brings the hundred lines that zip its files with their metadata.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Dict, List, Tuple

ROOT = Path(__file__).resolve().parents[1]
NAME = "tidemill"
#: The oldest that a zip can say: builds of the same files are the same bytes.
DATE = (1980, 1, 1, 0, 0, 0)
EXTRAS = {"functions": ["cloudpickle>=2"], "tables": ["pandas", "pyarrow"], "joblib": ["joblib>=1.3"]}


def _version() -> str:
    found = re.search(r'^__version__ = "(.+)"$', (ROOT / NAME / "__init__.py").read_text(), re.M)
    if found is None:
        raise ValueError(f"{NAME}/__init__.py has no line __version__ = \"...\"")
    return found.group(1)


def _metadata() -> str:
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {NAME}",
        f"Version: {_version()}",
        "Summary: Run functions on a Tidemill grid: the client, and the engine that runs them.",
        "License-Expression: Apache-2.0",
        "Requires-Python: >=3.9",
        "Classifier: Typing :: Typed",
    ]
    for extra, needs in EXTRAS.items():
        lines.append(f"Provides-Extra: {extra}")
        lines += [f'Requires-Dist: {need}; extra == "{extra}"' for need in needs]
    return "\n".join(lines) + "\n"


def _sources() -> List[Tuple[str, bytes]]:
    files = sorted(f for f in (ROOT / NAME).rglob("*") if f.suffix == ".py" or f.name == "py.typed")
    return [(f.relative_to(ROOT).as_posix(), f.read_bytes()) for f in files]


def _wheel(folder: str, files: List[Tuple[str, bytes]]) -> str:
    info = f"{NAME}-{_version()}.dist-info"
    wheel = f"Wheel-Version: 1.0\nGenerator: {NAME}\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = [*files, (f"{info}/METADATA", _metadata().encode()), (f"{info}/WHEEL", wheel.encode())]
    record = io.StringIO()
    name = f"{NAME}-{_version()}-py3-none-any.whl"
    with zipfile.ZipFile(Path(folder, name), "w", zipfile.ZIP_DEFLATED) as out:
        for path, data in files:
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.write(f"{path},sha256={digest},{len(data)}\n")
            _add(out, path, data)
        record.write(f"{info}/RECORD,,\n")
        _add(out, f"{info}/RECORD", record.getvalue().encode())
    return name


def _add(out: zipfile.ZipFile, path: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(path, DATE)
    entry.external_attr = 0o100644 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    out.writestr(entry, data)


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: Any = None) -> str:
    """PEP 517."""
    return _wheel(wheel_directory, _sources())


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: Any = None) -> str:
    """PEP 660: a wheel that points here."""
    return _wheel(wheel_directory, [(f"__editable__{NAME}.pth", f"{ROOT}\n".encode())])


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:
    """PEP 517."""
    base = f"{NAME}-{_version()}"
    own: Dict[str, bytes] = {f: (ROOT / f).read_bytes() for f in ("pyproject.toml", "build_backend/backend.py")}
    with tarfile.open(Path(sdist_directory, f"{base}.tar.gz"), "w:gz", format=tarfile.PAX_FORMAT) as out:
        for path, data in [*_sources(), *sorted(own.items()), ("PKG-INFO", _metadata().encode())]:
            entry = tarfile.TarInfo(f"{base}/{path}")
            entry.size = len(data)
            out.addfile(entry, io.BytesIO(data))
    return f"{base}.tar.gz"
