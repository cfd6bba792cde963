//! In-memory drivers: the executable meaning of each trait. Nothing survives the process.
