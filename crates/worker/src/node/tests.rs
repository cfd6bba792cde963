//! The node over memory drivers: in paused time with simulated tasks, and in real time with real processes.

mod faults;
mod hand_back;
mod lease;
mod processes;
mod rig;
mod strays;
