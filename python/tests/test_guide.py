"""The guide for quants, run as it stands: every block of Python in the order of the page, and its SQL."""

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import types
import unittest
from pathlib import Path
from unittest import mock

from test_grid import BIN, MISSING, Serve

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "quants.md"


def blocks():
    """Line and text of each."""
    text = GUIDE.read_text()
    found = re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S)
    return [(text.count("\n", 0, block.start(1)) + 1, block.group(1)) for block in found]


@unittest.skipIf(MISSING, MISSING)
class GuideTests(unittest.TestCase):
    def test_every_block_runs_and_sql_agrees_with_python(self):
        serve = Serve()
        self.addCleanup(serve.stop)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        code = blocks()
        self.assertGreater(len(code), 9)
        library = [text for _, text in code if text.startswith("# mylib.py")]
        Path(folder.name, "mylib.py").write_text(*library)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
        environment["TIDEMILL_DATA"] = str(serve.data)
        # As in a script or a notebook, whose functions travel by value.
        guide = {"__name__": "__main__"}
        with mock.patch.dict(os.environ, environment, clear=True):
            sys.path.insert(0, folder.name)
            self.addCleanup(sys.path.remove, folder.name)
            self.addCleanup(sys.modules.pop, "mylib", None)
            importlib.invalidate_caches()
            for line, text in code:
                if text in library or ("joblib" in text and not _has("joblib")):
                    continue
                # Errors name the page and the line in it.
                exec(compile("\n" * (line - 1) + text, str(GUIDE), "exec"), guide)
            said = subprocess.run([BIN, "sql", guide["query"], "--output", "json"], env=environment, capture_output=True, text=True, check=True)
        self.check(types.SimpleNamespace(**guide), json.loads(said.stdout))

    def check(self, guide, answer):
        rows = answer if isinstance(answer, list) else answer["rows"]
        rows = {row["book"]: row for row in rows}
        self.assertEqual(sorted(rows), ["B0", "B1", "B2", "B3", "firm"])
        self.assertAlmostEqual(rows["firm"]["var"], guide.var_99, 9)
        self.assertAlmostEqual(rows["firm"]["es"], guide.es_975, 9)
        self.assertGreater(guide.var_99, 0)
        self.assertEqual((guide.rows, len(guide.again), guide.counts["succeeded"]), (100_200, 100_200, 100_200))
        self.assertEqual(guide.again[501], guide.npv[1, 0])
        self.assertAlmostEqual(guide.total, sum(guide.values), 9)
        self.assertEqual([trade for trade, _ in guide.failed], [7])
        self.assertIn("trade 7 has expired", guide.message)
        self.assertIn("in npv", guide.traceback)


def _has(module):
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    unittest.main()
