//! SQL over the ledger and column segments, by DataFusion.
