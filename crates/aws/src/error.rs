//! What an error of the SDK means to a caller.
