//! Conformance suites, faulty wrappers and the simulator's harness.
