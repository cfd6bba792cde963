//! What this machine has to offer to a local worker.

use tidemill_base::Result;
use tidemill_blocks::fleet::{GroupSpec, Offers};

use crate::config::{FleetSection, GroupSection};

/// The groups of local workers that the configuration asks for.
pub(super) fn groups(fleet: &FleetSection) -> Result<Vec<GroupSpec>> {
    fleet.groups().iter().map(spec).collect()
}

fn spec(group: &GroupSection) -> Result<GroupSpec> {
    let cores = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
    let slots = if group.slots == 0 { cores } else { group.slots };
    let memory = if group.memory.bytes() == 0 { machine_memory() / 4 * 3 } else { group.memory.bytes() };
    let (min, max) = group.bounds()?;
    Ok(GroupSpec { name: group.class.clone(), min, max, offers: Offers { slots, memory, named: group.offers.clone() } })
}

/// Memory of the machine in bytes; where that cannot be found, enough that nothing is refused for it.
fn machine_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    total.map_or(1 << 40, |kib| kib * 1024)
}
