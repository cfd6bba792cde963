"""Values as a table."""

from __future__ import annotations

from typing import Any, List


def to_pandas(values: List[Any], index: Any = None) -> Any:
    """See :meth:`Results.to_pandas`."""
    import pandas

    if values and all(isinstance(v, pandas.DataFrame) for v in values):
        return pandas.concat(values, ignore_index=True)
    if values and all(_is_arrow(v) for v in values):
        return to_arrow(values).to_pandas()
    if values and all(isinstance(v, dict) for v in values):
        return pandas.DataFrame.from_records(values, index=index)
    if values and all(isinstance(v, tuple) and hasattr(v, "_fields") for v in values):
        return pandas.DataFrame.from_records(values, columns=values[0]._fields, index=index)
    return pandas.DataFrame({"value": values}, index=index)


def to_arrow(values: List[Any]) -> Any:
    """See :meth:`Results.to_arrow`."""
    import pyarrow

    if values and all(_is_arrow(v) for v in values):
        return pyarrow.concat_tables([pyarrow.Table.from_batches([v]) if isinstance(v, pyarrow.RecordBatch) else v for v in values])
    if values and all(isinstance(v, dict) for v in values):
        return pyarrow.Table.from_pylist(values)
    if values and all(isinstance(v, tuple) and hasattr(v, "_fields") for v in values):
        return pyarrow.Table.from_pylist([v._asdict() for v in values])
    if values and all(hasattr(v, "iloc") for v in values):
        return pyarrow.Table.from_pandas(to_pandas(values), preserve_index=False)
    return pyarrow.table({"value": values})


def _is_arrow(value: Any) -> bool:
    return type(value).__module__.split(".")[0] == "pyarrow" and hasattr(value, "schema")
