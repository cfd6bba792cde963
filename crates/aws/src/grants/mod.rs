//! Grants by STS.
