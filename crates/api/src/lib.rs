//! Versioned wire types of the public HTTP interface.
