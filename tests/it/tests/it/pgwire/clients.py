"""Checks of the SQL endpoint with drivers that people use. Called as `clients.py SETUP.json CHECK`; prints `ok CHECK` at the end."""

import datetime
import decimal
import json
import sys
import threading
import time

import psycopg

FOREVER = "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b, generate_series(1, 100000) c"


def connect(setup, **more):
    return psycopg.connect(host="127.0.0.1", port=setup["port"], user="tidemill", password=setup["token"], dbname="tidemill", **more)


def url(setup, driver):
    return f"postgresql+{driver}://tidemill:{setup['token']}@127.0.0.1:{setup['port']}/tidemill"


def check_parameters(setup):
    with connect(setup) as c:
        row = c.execute(
            "SELECT %s, %s, %s::float8, %s, %s, %s, %s, %s",
            (7, "O'Brien; --", 2.5, True, None, datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc), decimal.Decimal("1.50")),
        ).fetchone()
        assert row[:6] == (7, "O'Brien; --", 2.5, True, None, datetime.date(2026, 1, 2)), row
        assert row[7] == decimal.Decimal("1.50"), row
        found = c.execute("SELECT id FROM batch.jobs WHERE id = ANY(%s) AND priority >= %s", ([setup["job"], "no such job"], -5)).fetchall()
        assert found == [(setup["job"],)], found
        for n in range(6):
            (count,) = c.execute("SELECT count(*) FROM generate_series(1, %s) WHERE value %% 2 = 0", (n,), prepare=True).fetchone()
            assert count == n // 2, (n, count)
    sql = (
        "SELECT id, priority, submitted_at, CAST(1.25 AS DECIMAL(10, 3)) AS d, CAST(submitted_at AS DATE) AS day, [1, NULL, 3] AS list, "
        "arrow_cast('bytes', 'Binary') AS raw, INTERVAL '1 day 2 hours' AS span, finished_at FROM batch.jobs WHERE id = %s"
    )
    with connect(setup) as c:
        text = c.execute(sql, (setup["job"],)).fetchone()
        binary = c.cursor(binary=True).execute(sql, (setup["job"],)).fetchone()
        assert text == binary, (text, binary)
        assert text[3:6] == (decimal.Decimal("1.250"), text[2].date(), [1, None, 3]), text
        assert text[6:8] == (b"bytes", datetime.timedelta(days=1, hours=2)), text


def check_portals(setup):
    with connect(setup) as c:
        with c.cursor("rows") as cur:
            cur.itersize = 100
            cur.execute("SELECT value, value * 0.5 AS half FROM generate_series(1, 1000) WHERE value > %s", (0,))
            rows = list(cur)
            assert [r[0] for r in rows] == list(range(1, 1001)) and rows[9] == (10, 5.0), rows[:3]
        with c.cursor() as cur, cur.copy("COPY (SELECT value FROM generate_series(1, 1000)) TO STDOUT (FORMAT csv, HEADER)") as copy:
            lines = b"".join(bytes(part) for part in copy).splitlines()
            assert lines[0] == b"value" and len(lines) == 1001, lines[:3]


def check_cancel(setup):
    with connect(setup, autocommit=True) as c:
        timer = threading.Timer(0.5, c.cancel_safe)
        timer.start()
        began = time.monotonic()
        try:
            c.execute(FOREVER)
            raise AssertionError("it was not cancelled")
        except psycopg.errors.QueryCanceled as e:
            assert "user request" in str(e), e
        assert time.monotonic() - began < 20, "it ended long after it was cancelled"
        c.execute("SET statement_timeout = '300ms'")
        try:
            c.execute(FOREVER)
            raise AssertionError("it had no limit")
        except psycopg.errors.QueryCanceled as e:
            assert "300ms" in str(e), e
        assert c.execute("SELECT 1").fetchone() == (1,)


def check_refusals(setup):
    with connect(setup, autocommit=True) as c:
        for sql in ["INSERT INTO batch.jobs (id) VALUES ('x')", "DROP TABLE batch.jobs", "CREATE TABLE t (a int)", "COPY batch.jobs FROM STDIN"]:
            try:
                c.execute(sql)
                raise AssertionError(sql)
            except psycopg.errors.ReadOnlySqlTransaction as e:
                assert "only reads" in str(e), e
        try:
            c.execute("SELECT nme FROM batch.jobs")
            raise AssertionError("there is such a column")
        except psycopg.errors.UndefinedColumn as e:
            assert e.diag.statement_position == "8", e.diag.statement_position
    with connect(setup) as c:
        try:
            c.execute("SELECT 1 FROM nowhere")
        except psycopg.errors.UndefinedTable:
            pass
        try:
            c.execute("SELECT 1")
            raise AssertionError("the transaction went on")
        except psycopg.errors.InFailedSqlTransaction:
            c.rollback()
        assert c.execute("SELECT 1").fetchone() == (1,)


def check_many(setup):
    found = [None] * 10

    def one(i):
        with connect(setup) as c:
            for _ in range(5):
                found[i] = c.execute("SELECT sum(value) FROM generate_series(1, %s)", (i + 1,)).fetchone()[0]

    threads = [threading.Thread(target=one, args=(i,)) for i in range(10)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert found == [(i + 1) * (i + 2) // 2 for i in range(10)], found


def reflect(setup, driver):
    import sqlalchemy as sa

    engine = sa.create_engine(url(setup, driver))
    with engine.connect() as c:
        look = sa.inspect(c)
        assert {"batch", "fleet"} <= set(look.get_schema_names()), look.get_schema_names()
        assert {"jobs", "stages", "tasks"} <= set(look.get_table_names("batch")), look.get_table_names("batch")
        assert "workers" in look.get_table_names(), look.get_table_names()
        columns = {col["name"]: str(col["type"]) for col in look.get_columns("jobs", schema="batch")}
        assert columns["id"] == "TEXT" and columns["priority"] == "BIGINT" and columns["submitted_at"] == "TIMESTAMP", columns
        for empty in (look.get_pk_constraint("jobs")["constrained_columns"], look.get_foreign_keys("jobs"), look.get_indexes("jobs")):
            assert empty == [], empty
        assert look.get_unique_constraints("jobs") == [] and look.get_check_constraints("jobs") == []
        assert look.has_table("jobs") and not look.has_table("nowhere")
        jobs = sa.Table("jobs", sa.MetaData(), schema="batch", autoload_with=c)
        row = c.execute(sa.select(jobs.c.id, jobs.c.name).where(jobs.c.id == setup["job"])).one()
        assert row == (setup["job"], "looked-at"), row
        tasks = sa.Table("tasks", sa.MetaData(), schema="batch", autoload_with=c)
        streamed = c.execution_options(stream_results=True, max_row_buffer=10).execute(sa.select(tasks.c.task).where(tasks.c.job == setup["job"]))
        assert sorted(streamed.scalars()) == list(range(setup["tasks"]))
    return engine


def check_sqlalchemy(setup):
    for driver in ("psycopg", "psycopg2"):
        engine = reflect(setup, driver)
    import pandas as pd

    frame = pd.read_sql("SELECT task, run_us, started_at FROM batch.tasks", engine)
    assert len(frame) == setup["tasks"] and str(frame.dtypes["run_us"]) == "int64", frame.dtypes
    assert "datetime64" in str(frame.dtypes["started_at"]), frame.dtypes
    assert len(pd.read_sql_table("jobs", engine, schema="batch")) >= 1


def check_adbc(setup):
    import adbc_driver_postgresql.dbapi as adbc

    with adbc.connect(f"postgresql://tidemill:{setup['token']}@127.0.0.1:{setup['port']}/tidemill") as c:
        with c.cursor() as cur:
            cur.execute("SELECT task, run_us, class, cost, started_at FROM batch.tasks ORDER BY task")
            table = cur.fetch_arrow_table()
            assert table.num_rows == setup["tasks"], table.num_rows
            assert [str(f.type) for f in table.schema] == ["int64", "int64", "string", "double", "timestamp[us, tz=UTC]"], table.schema
            cur.execute("SELECT id FROM batch.jobs WHERE id = $1", (setup["job"],))
            assert cur.fetchall() == [(setup["job"],)]
            cur.execute("SELECT value FROM generate_series(1, 3) WHERE value < 0")
            assert cur.fetch_arrow_table().num_rows == 0
        objects = c.adbc_get_objects(catalog_filter="tidemill").read_all().to_pylist()
        schemas = {s["db_schema_name"] for s in objects[0]["catalog_db_schemas"]}
        assert {"batch", "fleet"} <= schemas, schemas
        assert "submitted_at" in c.adbc_get_table_schema("jobs", db_schema_filter="batch").names


def check_asyncpg(setup):
    import asyncio

    import asyncpg

    async def go():
        c = await asyncpg.connect(host="127.0.0.1", port=setup["port"], user="tidemill", password=setup["token"], database="tidemill")
        rows = await c.fetch("SELECT id, priority, submitted_at FROM batch.jobs WHERE id = $1 LIMIT $2", setup["job"], 3)
        assert [r["id"] for r in rows] == [setup["job"]] and rows[0]["submitted_at"].tzinfo is not None, rows
        async with c.transaction():
            seen = [r["value"] async for r in c.cursor("SELECT value FROM generate_series(1, 500)", prefetch=50)]
        assert seen == list(range(1, 501))
        await c.close()

    asyncio.run(go())


if __name__ == "__main__":
    with open(sys.argv[1]) as f:
        chosen = json.load(f)
    globals()[f"check_{sys.argv[2]}"](chosen)
    print("ok", sys.argv[2])
