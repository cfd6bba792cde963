//! Blocks reached through a manager over HTTP: the driver that workers use when there is no cloud.
