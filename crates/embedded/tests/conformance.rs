//! The embedded drivers against the suites of their blocks; queue and table have files of their own.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers included")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidemill_blocks::fleet::Fleet;
use tidemill_blocks::grants::Grants;
use tidemill_blocks::ledger::Ledger;
use tidemill_blocks::objects::Objects;
use tidemill_blocks_test::Harness;
use tidemill_embedded::Embedded;
use tidemill_embedded::fleet::{LocalFleet, LocalFleetSettings, MemberCommand};
use tidemill_embedded::grants::EmbeddedGrants;
use tidemill_embedded::ledger::SqliteLedger;

async fn make_objects(h: &Harness) -> Objects {
    Embedded::open(&h.fresh_path("data"), h.env().clone()).unwrap().objects()
}

async fn make_ledger(h: &Harness) -> Arc<dyn Ledger> {
    Arc::new(SqliteLedger::open(h.fresh_path("ledger"), h.env().clone()).unwrap())
}

async fn make_grants(h: &Harness) -> Arc<dyn Grants> {
    Arc::new(EmbeddedGrants::new([7; 32], h.env().clone(), None))
}

/// Members end by themselves, later than any behaviour takes on a busy machine.
async fn make_fleet(h: &Harness) -> Arc<dyn Fleet> {
    let command = MemberCommand { program: "sleep".into(), args: vec!["300".into()], env: BTreeMap::new() };
    let mut settings = LocalFleetSettings::new(h.fresh_path("fleet"), command);
    settings.healthy_after = Duration::from_millis(50);
    Arc::new(LocalFleet::open(settings, h.env().clone()).unwrap())
}

mod objects {
    tidemill_blocks_test::objects_suite!(real, super::make_objects);
}

mod ledger {
    tidemill_blocks_test::ledger_suite!(real, super::make_ledger);
}

mod grants {
    tidemill_blocks_test::grants_suite!(real, super::make_grants);
}

mod fleet {
    tidemill_blocks_test::fleet_suite!(real, super::make_fleet);
}
