//! Which ids the guest has: one, ranges of subordinate ones, or, for real root, all that there are.

use std::{fs, io};

use coracle_api::{Identity, SubordinateIds};

use crate::credentials::effective_capabilities;

/// capabilities(7).
const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;

/// One row of a map: guest id, host id, how many.
pub(crate) type Extent = (u32, u32, u32);

/// The ids of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ids<'a> {
    /// The launcher's own, under the name that was asked for.
    One,
    /// Its own, and subordinate ones.
    Ranges(&'a SubordinateIds),
    /// Each id that the launcher's own namespace has, as itself: root runs this as root, so that what it gives away (in a
    /// volume, say) is really given away.
    All,
}

impl<'a> Ids<'a> {
    /// Decides, in the launcher's own namespace.
    pub(crate) fn of(identity: &'a Identity) -> Self {
        let root = (identity.uid, identity.host_uid) == (0, 0) && identity.gid == identity.host_gid;
        match &identity.subordinate {
            Some(ranges) => Self::Ranges(ranges),
            None if root && may_map_all() => Self::All,
            None => Self::One,
        }
    }

    /// The maps to write, users' and groups'; none where one row is enough.
    pub(crate) fn maps(self, identity: &Identity) -> io::Result<Option<[Vec<Extent>; 2]>> {
        Ok(match self {
            Self::One => None,
            Self::Ranges(ranges) => Some([
                extents(identity.uid, identity.host_uid, ranges.uids),
                extents(identity.gid, identity.host_gid, ranges.gids),
            ]),
            Self::All => Some([same("/proc/self/uid_map")?, same("/proc/self/gid_map")?]),
        })
    }

    /// Whether this group exists inside.
    pub(crate) fn has_group(self, group: u32) -> bool {
        match self {
            Self::One => false,
            Self::Ranges(ranges) => ranges.gids.1 > group,
            Self::All => same("/proc/self/gid_map")
                .is_ok_and(|map| map.iter().any(|row| (row.0..row.0.saturating_add(row.2)).contains(&group))),
        }
    }
}

fn may_map_all() -> bool {
    let capabilities = effective_capabilities().unwrap_or(0);
    let more_than_one =
        |map: &str| same(map).is_ok_and(|rows| rows.iter().map(|row| u64::from(row.2)).sum::<u64>() > 1);
    [CAP_SETUID, CAP_SETGID].iter().all(|capability| capabilities & (1 << capability) != 0)
        && more_than_one("/proc/self/uid_map")
        && more_than_one("/proc/self/gid_map")
}

/// A map of every id of this namespace to itself.
fn same(map: &str) -> io::Result<Vec<Extent>> {
    let text = fs::read_to_string(map)?;
    let rows = text.lines().map(|row| {
        let mut numbers = row.split_ascii_whitespace().map(str::parse);
        let (first, _outside, count) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some((first, first, count))
    });
    rows.collect::<Option<_>>().ok_or_else(|| io::Error::other("its rows are not numbers"))
}

/// The guest's `asked` id is the launcher's `own`; every other guest id comes from the range, in order.
fn extents(asked: u32, own: u32, (first, count): (u32, u32)) -> Vec<Extent> {
    let below = asked.min(count);
    let mut map = Vec::with_capacity(3);
    if below > 0 {
        map.push((0, first, below));
    }
    map.push((asked, own, 1));
    if count > below {
        map.push((asked + 1, first + below, count - below));
    }
    map
}

#[cfg(test)]
mod tests {
    use super::extents;

    #[test]
    fn own_id_takes_the_asked_place() {
        assert_eq!(extents(0, 1000, (100_000, 65536)), [(0, 1000, 1), (1, 100_000, 65536)]);
        assert_eq!(extents(33, 1000, (100_000, 100)), [(0, 100_000, 33), (33, 1000, 1), (34, 100_033, 67)]);
        assert_eq!(extents(1000, 1000, (100_000, 100)), [(0, 100_000, 100), (1000, 1000, 1)]);
    }
}
