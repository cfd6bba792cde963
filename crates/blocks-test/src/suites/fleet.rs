//! What a fleet must do. Members come and go in their own time, so each behaviour reconciles until it has come about.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidemill_base::{ErrorKind, Result};
use tidemill_blocks::fleet::{Fleet, Group, GroupSpec, Member, MemberState, Offers};

use crate::Harness;
use crate::suites::fails;

/// Tests a fleet driver: `fleet_suite!(real, make)` or `fleet_suite!(simulated, make)`, `make` being
/// `async fn(&Harness) -> Arc<dyn Fleet>`. Its members must go when they are told to drain.
#[macro_export]
macro_rules! fleet_suite {
    ($mode:ident $(, $make:path)?) => {
        $crate::__behaviours! {fleet, $mode, $($make,)?
            group_specs_are_checked unknown_groups_and_members_are_not_found a_new_group_comes_to_its_minimum
            the_desired_size_is_reached sizes_out_of_bounds_are_invalid settings_change_and_the_size_follows
            groups_are_separate a_group_scales_to_zero the_youngest_go_first protected_members_stay
            sick_members_are_replaced drained_with_replacement drained_without_replacement
            draining_twice_counts_once draining_keeps_the_minimum reconciling_again_changes_nothing
        }
    };
}

const PATIENCE: u32 = 300;

fn spec(name: &str, min: u32, max: u32) -> GroupSpec {
    GroupSpec { name: name.to_owned(), min, max, offers: Offers { slots: 1, memory: 1 << 20, named: BTreeMap::new() } }
}

async fn group(f: &Arc<dyn Fleet>, name: &str) -> Result<Group> {
    Ok(f.groups().await?.into_iter().find(|g| g.spec.name == name).expect("the group is listed"))
}

fn is_active(m: &Member) -> bool {
    matches!(m.state, MemberState::Starting | MemberState::Running)
}

fn ids(g: &Group) -> BTreeSet<String> {
    g.members.iter().map(|m| m.id.clone()).collect()
}

/// Reconciles until the group looks as it should. Meanwhile there are never more active members than the maximum.
async fn until(f: &Arc<dyn Fleet>, h: &Harness, name: &str, what: &str, is_so: impl Fn(&Group) -> bool) -> Result<Group> {
    for _ in 0..PATIENCE {
        f.reconcile().await?;
        let g = group(f, name).await?;
        let active = g.members.iter().filter(|m| is_active(m)).count();
        let protected = g.members.iter().filter(|m| m.protected).count();
        assert!(active <= (g.spec.max as usize).max(protected), "{active} active members, the maximum is {}", g.spec.max);
        if is_so(&g) {
            return Ok(g);
        }
        h.pass(Duration::from_millis(20)).await;
    }
    panic!("{what} does not come about: {:?}", group(f, name).await?);
}

/// A group with `size` members, all there and no others.
async fn settled(f: &Arc<dyn Fleet>, h: &Harness, name: &str, size: u32) -> Result<Group> {
    until(f, h, name, &format!("a size of {size}"), |g| {
        g.desired == size && g.members.len() == size as usize && g.members.iter().all(is_active)
    })
    .await
}

async fn group_of(f: &Arc<dyn Fleet>, h: &Harness, name: &str, size: u32) -> Result<Group> {
    f.ensure(spec(name, 0, 8)).await?;
    f.set_desired(name, size).await?;
    settled(f, h, name, size).await
}

/// Names of the wrong shape and bounds the wrong way round are `Invalid`.
pub async fn group_specs_are_checked(f: &Arc<dyn Fleet>, _: &Harness) -> Result<()> {
    for bad in ["", "Upper", "a_b", "a b", "a/b", "..", "ü", &"x".repeat(41)] {
        fails(ErrorKind::Invalid, bad, f.ensure(spec(bad, 0, 1)).await);
    }
    fails(ErrorKind::Invalid, "min over max", f.ensure(spec("g", 2, 1)).await);
    assert!(f.groups().await?.is_empty());
    f.ensure(spec(&"x".repeat(40), 0, 0)).await?;
    f.ensure(spec("a-1", 0, 1)).await?;
    assert_eq!(f.groups().await?.len(), 2);
    Ok(())
}

/// Calls on a group or a member that is not there are `NotFound`.
pub async fn unknown_groups_and_members_are_not_found(f: &Arc<dyn Fleet>, _: &Harness) -> Result<()> {
    f.ensure(spec("g", 0, 1)).await?;
    fails(ErrorKind::NotFound, "set_desired", f.set_desired("no", 0).await);
    for (g, what) in [("no", "no such group"), ("g", "no such member")] {
        fails(ErrorKind::NotFound, what, f.protect(g, "m", true).await);
        fails(ErrorKind::NotFound, what, f.drain(g, "m", true).await);
        fails(ErrorKind::NotFound, what, f.mark_unhealthy(g, "m").await);
    }
    Ok(())
}

/// A new group has its minimum of members, each under its own id and none protected.
pub async fn a_new_group_comes_to_its_minimum(f: &Arc<dyn Fleet>, h: &Harness) -> Result<()> {
    f.ensure(spec("g", 2, 4)).await?;
    let g = settled(f, h, "g", 2).await?;
    assert_eq!(ids(&g).len(), 2);
    assert!(g.members.iter().all(|m| !m.protected && m.started_at <= h.env().now()), "{g:?}");
    assert_eq!(g.spec, spec("g", 2, 4));
    Ok(())
}

/// The group grows and shrinks to the size set; those that stay are the same.
pub async fn the_desired_size_is_reached(f: &Arc<dyn Fleet>, h: &Harness) -> Result<()> {
    let two = group_of(f, h, "g", 2).await?;
    f.set_desired("g", 5).await?;
    let five = settled(f, h, "g", 5).await?;
    assert!(ids(&five).is_superset(&ids(&two)), "growing keeps the members");
    f.set_desired("g", 1).await?;
    let one = settled(f, h, "g", 1).await?;
    assert!(ids(&five).is_superset(&ids(&one)), "shrinking starts nobody");
    Ok(())
}

/// A size outside the bounds is `Invalid` and changes nothing.
pub async fn sizes_out_of_bounds_are_invalid(f: &Arc<dyn Fleet>, h: &Harness) -> Result<()> {
    f.ensure(spec("g", 1, 3)).await?;
    fails(ErrorKind::Invalid, "0", f.set_desired("g", 0).await);
    fails(ErrorKind::Invalid, "4", f.set_desired("g", 4).await);
    settled(f, h, "g", 1).await?;
    f.set_desired("g", 3).await?;
    settled(f, h, "g", 3).await?;
    Ok(())
}

/// New bounds take the desired size with them.
pub async fn settings_change_and_the_size_follows(f: &Arc<dyn Fleet>, h: &Harness) -> Result<()> {
    group_of(f, h, "g", 2).await?;
    f.ensure(spec("g", 4, 6)).await?;
    settled(f, h, "g", 4).await?;
    f.ensure(spec("g", 0, 1)).await?;
    settled(f, h, "g", 1).await?;
    f.ensure(spec("g", 0, 6)).await?;
    let g = settled(f, h, "g", 1).await?;
    assert_eq!(g.spec, spec("g", 0, 6));
    Ok(())
}

/// What happens to one group does not touch another.
pub async fn groups_are_separate(f: &Arc<dyn Fleet>, h: &Harness) -> Result<()> {
    let (a, b) = (group_of(f, h, "a", 2).await?, group_of(f, h, "b", 2).await?);
    assert!(ids(&a).is_disjoint(&ids(&b)));
    fails(ErrorKind::NotFound, "a member of another group", f.drain("a", &b.members[0].id, true).await);
    f.set_desired("a", 0).await?;
    settled(f, h, "a", 0).await?;
    assert_eq!(ids(&settled(f, h, "b", 2).await?), ids(&b));
    Ok(())
}

/// A group without members stays a group, and comes back.
pub async fn a_group_scales_to_zero(f: &Arc<dyn Fleet>, h: &Harness) -> Result<()> {
    group_of(f, h, "g", 2).await?;
    f.set_desired("g", 0).await?;
    settled(f, h, "g", 0).await?;
    f.set_desired("g", 1).await?;
    settled(f, h, "g", 1).await?;
    Ok(())
}

/// When the group shrinks, those started last are drained.
pub async fn the_youngest_go_first(f: &Arc<dyn Fleet>, h: &Harness) -> Result<()> {
    let old = group_of(f, h, "g", 2).await?;
    h.pass(Duration::from_millis(50)).await;
    f.set_desired("g", 5).await?;
    settled(f, h, "g", 5).await?;
    f.set_desired("g", 2).await?;
    assert_eq!(ids(&settled(f, h, "g", 2).await?), ids(&old));
    Ok(())
}

/// A protected member is not chosen, though the group stays too large; once it is released it goes.
pub async fn protected_members_stay(f: &Arc<dyn Fleet>, h: &Harness) -> Result<()> {
    let old = group_of(f, h, "g", 2).await?;
    h.pass(Duration::from_millis(50)).await;
    f.set_desired("g", 3).await?;
    let three = settled(f, h, "g", 3).await?;
    let youngest = three.members.iter().find(|m| !ids(&old).contains(&m.id)).expect("one is new").id.clone();
    f.protect("g", &youngest, true).await?;
    f.set_desired("g", 1).await?;
    let one = settled(f, h, "g", 1).await?;
    assert_eq!((one.members[0].id.as_str(), one.members[0].protected), (youngest.as_str(), true));
    f.set_desired("g", 0).await?;
    for _ in 0..5 {
        f.reconcile().await?;
        h.pass(Duration::from_millis(20)).await;
    }
    assert_eq!(ids(&group(f, "g").await?), [youngest.clone()].into());
    f.protect("g", &youngest, false).await?;
    settled(f, h, "g", 0).await?;
    Ok(())
}

/// A sick member is gone, protected or not, and another takes its place.
pub async fn sick_members_are_replaced(f: &Arc<dyn Fleet>, h: &Harness) -> Result<()> {
    let before = group_of(f, h, "g", 3).await?;
    let sick = &before.members[1].id;
    f.protect("g", sick, true).await?;
    f.mark_unhealthy("g", sick).await?;
    let member = group(f, "g").await?.members.into_iter().find(|m| m.id == *sick);
    assert!(member.is_none_or(|m| m.state == MemberState::Unhealthy));
    let gone = |g: &Group| g.members.len() == 3 && g.members.iter().all(|m| m.id != *sick && is_active(m));
    let after = until(f, h, "g", "the replacement", gone).await?;
    assert_eq!((after.desired, ids(&after).intersection(&ids(&before)).count()), (3, 2));
    Ok(())
}

/// With replacement the size stays; the drained member goes and a new one comes.
pub async fn drained_with_replacement(f: &Arc<dyn Fleet>, h: &Harness) -> Result<()> {
    let before = group_of(f, h, "g", 2).await?;
    let drained = &before.members[0].id;
    f.drain("g", drained, true).await?;
    let member = group(f, "g").await?.members.into_iter().find(|m| m.id == *drained);
    assert!(member.is_none_or(|m| m.state == MemberState::Draining));
    let gone = |g: &Group| g.members.len() == 2 && g.members.iter().all(|m| m.id != *drained && is_active(m));
    let after = until(f, h, "g", "the replacement", gone).await?;
    assert_eq!((after.desired, ids(&after).intersection(&ids(&before)).count()), (2, 1));
    Ok(())
}

/// Without replacement the size shrinks by the drained member, which is the one that goes.
pub async fn drained_without_replacement(f: &Arc<dyn Fleet>, h: &Harness) -> Result<()> {
    let before = group_of(f, h, "g", 3).await?;
    let drained = &before.members[0].id;
    f.drain("g", drained, false).await?;
    let after = settled(f, h, "g", 2).await?;
    let mut left = ids(&before);
    left.remove(drained);
    assert_eq!(ids(&after), left);
    Ok(())
}

/// A member asked twice to drain counts once.
pub async fn draining_twice_counts_once(f: &Arc<dyn Fleet>, h: &Harness) -> Result<()> {
    let before = group_of(f, h, "g", 3).await?;
    let drained = &before.members[2].id;
    f.drain("g", drained, false).await?;
    match f.drain("g", drained, false).await {
        Ok(()) => {}
        // It may have gone already.
        Err(e) => assert_eq!(e.kind(), ErrorKind::NotFound, "{e:?}"),
    }
    settled(f, h, "g", 2).await?;
    Ok(())
}

/// A group at its minimum stays there: a drained member is replaced, or draining it without replacement is refused.
pub async fn draining_keeps_the_minimum(f: &Arc<dyn Fleet>, h: &Harness) -> Result<()> {
    f.ensure(spec("g", 2, 4)).await?;
    let g = settled(f, h, "g", 2).await?;
    if let Err(e) = f.drain("g", &g.members[0].id, false).await {
        assert_eq!(e.kind(), ErrorKind::Invalid, "{e:?}");
    }
    settled(f, h, "g", 2).await?;
    Ok(())
}

/// A group that is as it should be is left alone.
pub async fn reconciling_again_changes_nothing(f: &Arc<dyn Fleet>, h: &Harness) -> Result<()> {
    let before = group_of(f, h, "g", 3).await?;
    for _ in 0..10 {
        f.reconcile().await?;
        assert_eq!(ids(&group(f, "g").await?), ids(&before));
    }
    Ok(())
}
