"""Small Parquet files for the corpus reader, made with pyarrow (26).

Run from the repository root:  python scripts/goldens/parquet.py
Writes into test/goldens/text/: one file per compression, each with two row groups, a nested column before the text,
an empty text and a missing one; and files without a column `text`, or with one that holds numbers.
"""

import pyarrow as pa
import pyarrow.parquet as pq

OUT = "test/goldens/text/"
TEXTS = ["first document", "zweites – 文 😀", "", None, "x" * 300, "last"]

table = pa.table({
    "meta": pa.array([{"id": i, "tags": ["a", "b"]} for i in range(len(TEXTS))]),
    "text": pa.array(TEXTS),
    "score": pa.array([i / 2 for i in range(len(TEXTS))]),
})
for compression in ["snappy", "gzip", "zstd", "brotli", "none"]:
    pq.write_table(table, f"{OUT}texts.{compression}.parquet", compression=compression, row_group_size=4)
pq.write_table(table.drop_columns(["text"]), OUT + "no-text.parquet")
pq.write_table(pa.table({"text": pa.array([1, 2])}), OUT + "numbers.parquet")
