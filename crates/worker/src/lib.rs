//! The node that takes tasks: lease loop, staging, runners.
