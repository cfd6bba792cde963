//! Arrow's IPC format out of memory.
//!
//! The readers that take any source of bytes make room for as much as a message claims to hold, before they find out that it does not; a
//! few bytes could then end the program. These take what is there, and what is not is an error.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::convert::fb_to_schema;
use datafusion::arrow::ipc::reader::{FileDecoder, StreamDecoder, read_footer_length};
use datafusion::arrow::ipc::{Block, root_as_footer};
use tidemill_base::{Error, Result};

/// What a file begins with, and ends with behind its footer and the footer's length.
const MAGIC: &[u8] = b"ARROW1";
/// Length and magic at the end.
const TRAILER: usize = 10;

fn wrong(e: ArrowError) -> Error {
    Error::invalid(e.to_string())
}

/// Hands over the batches of a file or a stream, which tell themselves apart by how they begin.
pub(super) fn batches(bytes: &Bytes, each: &mut dyn FnMut(RecordBatch) -> Result<()>) -> Result<()> {
    let buffer = Buffer::from(bytes.clone());
    if bytes.starts_with(MAGIC) { file(&buffer, each) } else { stream(buffer, each) }
}

fn stream(mut buffer: Buffer, each: &mut dyn FnMut(RecordBatch) -> Result<()>) -> Result<()> {
    let mut decoder = StreamDecoder::new();
    while let Some(batch) = decoder.decode(&mut buffer).map_err(wrong)? {
        each(batch)?;
    }
    decoder.finish().map_err(wrong)
}

fn file(buffer: &Buffer, each: &mut dyn FnMut(RecordBatch) -> Result<()>) -> Result<()> {
    let short = || Error::invalid("it is an Arrow file that ends before its footer says so; was it written to its end?");
    let trailer_at = buffer.len().checked_sub(TRAILER).ok_or_else(short)?;
    let trailer: [u8; TRAILER] = buffer[trailer_at..].try_into().map_err(|_| short())?;
    let footer_at = trailer_at.checked_sub(read_footer_length(trailer).map_err(wrong)?).ok_or_else(short)?;
    let footer = root_as_footer(&buffer[footer_at..trailer_at]).map_err(|e| Error::invalid(format!("its footer cannot be read: {e}")))?;
    let schema = footer.schema().ok_or_else(|| Error::invalid("its footer has no schema"))?;
    let mut decoder = FileDecoder::new(Arc::new(fb_to_schema(schema)), footer.version());
    let part = |block: &Block| {
        let from = usize::try_from(block.offset()).ok()?;
        let len = usize::try_from(block.bodyLength()).ok()?.checked_add(usize::try_from(block.metaDataLength()).ok()?)?;
        (from.checked_add(len)? <= footer_at).then(|| buffer.slice_with_length(from, len))
    };
    for block in footer.dictionaries().iter().flatten() {
        decoder.read_dictionary(block, &part(block).ok_or_else(short)?).map_err(wrong)?;
    }
    for block in footer.recordBatches().iter().flatten() {
        if let Some(batch) = decoder.read_record_batch(block, &part(block).ok_or_else(short)?).map_err(wrong)? {
            each(batch)?;
        }
    }
    Ok(())
}
