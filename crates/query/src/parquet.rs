//! Segments: rows as one Parquet object.
//!
//! Row groups of 65,536 rows with statistics and a page index, so that a segment sorted by what people ask for is mostly skipped;
//! LZ4, because a segment is read many times and decoding is what a scan spends its time on. Text has a dictionary, since words
//! repeat. Numbers have none: a dictionary is read whole for a single page. Whole numbers and times are stored as differences.

use bytes::Bytes;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, Encoding};
use datafusion::parquet::file::metadata::ParquetMetaDataReader;
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties};
use datafusion::parquet::schema::types::ColumnPath;
use tidemill_base::{Error, Result};

use crate::{TableData, Type};

/// Rows in a row group, which is what a scan skips or reads.
pub const ROW_GROUP_ROWS: usize = 65_536;
/// Rows in a page, the finer step within a group.
const PAGE_ROWS: usize = 8_192;

/// The rows as one Parquet object. Rows sorted by the columns most asked for (a job, a time) make the best segment.
pub fn encode(table: &TableData) -> Result<Bytes> {
    let batch = table.to_batch(&table.schema().arrow())?;
    let properties = properties(table);
    let failed = |e| Error::internal("encode a segment as Parquet").with_source(e);
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).map_err(failed)?;
    writer.write(&batch).map_err(failed)?;
    Ok(Bytes::from(writer.into_inner().map_err(failed)?))
}

fn properties(table: &TableData) -> WriterProperties {
    let builder = WriterProperties::builder()
        .set_compression(Compression::LZ4_RAW)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_dictionary_enabled(false)
        .set_created_by(concat!("tidemill ", env!("CARGO_PKG_VERSION")).to_owned());
    let builder = table.columns().iter().fold(builder, |builder, column| {
        // As one part: a name may hold a dot.
        let path = ColumnPath::from(vec![column.name.clone()]);
        match column.values.kind() {
            Type::Text => builder.set_column_dictionary_enabled(path, true),
            Type::Int | Type::UInt | Type::Time => builder.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED),
            Type::Real => builder.set_column_encoding(path, Encoding::BYTE_STREAM_SPLIT),
            Type::Bool => builder,
        }
    });
    builder.build()
}

/// How many rows a Parquet object holds, by its footer. `Corrupt` if it is not Parquet.
pub fn row_count(segment: &Bytes) -> Result<u64> {
    let metadata = ParquetMetaDataReader::new()
        .parse_and_finish(segment)
        .map_err(|e| Error::corrupt(format!("{} bytes are not a Parquet object", segment.len())).with_source(e))?;
    u64::try_from(metadata.file_metadata().num_rows()).map_err(|e| Error::corrupt("a negative row count in a footer").with_source(e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ColumnValues;
    use tidemill_base::ErrorKind;

    #[test]
    fn a_segment_knows_its_rows_and_junk_is_corrupt() {
        let rows = 70_000_u32;
        let table = TableData::with_rows(70_000)
            .column("n", ColumnValues::Int((0..i64::from(rows)).collect()))
            .and_then(|t| t.column("state", ColumnValues::Dict { rows: vec![0; 70_000], words: vec!["done".into()] }))
            .unwrap();
        let segment = encode(&table).unwrap();
        assert_eq!(row_count(&segment).unwrap(), 70_000);
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&segment).unwrap();
        assert_eq!(metadata.num_row_groups(), 2);
        assert!(metadata.row_group(0).column(1).compressed_size() < 2_000, "a repeated word is stored once per page");
        let junk = row_count(&Bytes::from_static(b"PAR1 is not enough")).unwrap_err();
        assert_eq!(junk.kind(), ErrorKind::Corrupt);
        assert_eq!(row_count(&segment.slice(..segment.len() - 1)).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
