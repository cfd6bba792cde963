//! What this machine has to offer to a local worker.

use std::collections::BTreeMap;

use tidemill_blocks::fleet::Offers;

use crate::config::FleetSection;

/// What one local worker offers, where the configuration does not say.
pub(super) fn offers(fleet: &FleetSection) -> Offers {
    let cores = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
    let slots = if fleet.slots == 0 { cores } else { fleet.slots };
    let memory = if fleet.memory.bytes() == 0 { machine_memory() / 4 * 3 } else { fleet.memory.bytes() };
    Offers { slots, memory, named: BTreeMap::new() }
}

/// Memory of the machine in bytes; where that cannot be found, enough that nothing is refused for it.
fn machine_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    total.map_or(1 << 40, |kib| kib * 1024)
}
