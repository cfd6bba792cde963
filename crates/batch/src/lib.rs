//! The batch system: model, reactor, service, protocol.
