"""Runs the queries beside this file with DuckDB over TPC-H Parquet files: answers and times as JSON.

usage: python duckdb_reference.py FOLDER > answers.json      (pip install duckdb)
The decimals of the files are read as doubles, as the bench does: both sides compute the same.
"""
import datetime, decimal, json, pathlib, sys, time

import duckdb

folder, here = pathlib.Path(sys.argv[1]), pathlib.Path(__file__).parent
db = duckdb.connect()
db.execute("SET threads = 2")
for file in sorted(folder.glob("*.parquet")):
    db.execute(f"CREATE VIEW {file.stem} AS SELECT * FROM read_parquet('{file}')")


def plain(value):
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    return value


out = {}
for query in sorted(here.glob("q*.sql")):
    best = None
    for _ in range(3):
        begin = time.perf_counter()
        cursor = db.execute(query.read_text())
        rows = cursor.fetchall()
        took = (time.perf_counter() - begin) * 1e3
        best = took if best is None else min(best, took)
    out[query.stem] = {"ms": round(best, 2), "rows": [[plain(v) for v in row] for row in rows]}
json.dump(out, sys.stdout)
