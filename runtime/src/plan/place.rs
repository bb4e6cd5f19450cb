//! Places of intervals: which lie above which, chosen for one set of sizes and right for all.
//!
//! In: lifetimes and sizes. Out: for each interval those that lie directly below it at some time. Every time, the live
//! ones form a chain of neighbours, so if each lies above its lower neighbours, no two live ones overlap, whatever their
//! sizes. O(n log n).

use std::collections::{BTreeMap, BTreeSet};

/// Memory that is in use from step `first` to step `last`, both included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interval {
    pub(super) first: usize,
    pub(super) last: usize,
    /// Size that the choice is made for.
    pub(super) size: u64,
}

/// The choice.
pub(super) struct Placement {
    /// Intervals, lower ones first: each comes after all that it lies above.
    pub(super) order: Vec<usize>,
    /// The lower neighbours of each interval.
    pub(super) above: Vec<Vec<usize>>,
}

/// Free ranges below the top, by place and by size.
#[derive(Default)]
struct Free {
    by_place: BTreeMap<u128, u128>,
    by_size: BTreeSet<(u128, u128)>,
    top: u128,
}

impl Free {
    fn add(&mut self, at: u128, size: u128) {
        self.by_place.insert(at, size);
        self.by_size.insert((size, at));
    }

    fn drop(&mut self, at: u128) -> u128 {
        let size = self.by_place.remove(&at).unwrap_or(0);
        self.by_size.remove(&(size, at));
        size
    }

    /// The smallest hole that is large enough, or the top.
    fn take(&mut self, size: u128) -> u128 {
        if let Some(&(hole, at)) = self.by_size.range((size, 0)..).next() {
            self.drop(at);
            if hole > size {
                self.add(at + size, hole - size);
            }
            return at;
        }
        let at = self.top;
        self.top += size;
        at
    }

    fn give(&mut self, mut at: u128, mut size: u128) {
        if let Some((&before, &n)) = self.by_place.range(..at).next_back()
            && before + n == at
        {
            (at, size) = (before, size + self.drop(before));
        }
        if self.by_place.contains_key(&(at + size)) {
            size += self.drop(at + size);
        }
        if at + size == self.top {
            self.top = at;
        } else {
            self.add(at, size);
        }
    }
}

/// Chooses places, in the order of time or backwards, whichever needs less, and finds the neighbours.
pub(super) fn place(intervals: &[Interval]) -> Placement {
    let end = intervals.iter().map(|i| i.last).max().unwrap_or(0);
    let back = |i: &Interval| Interval { first: end - i.last, last: end - i.first, size: i.size };
    let (forward, peak) = fit(intervals);
    let (backward, other) = fit(&intervals.iter().map(back).collect::<Vec<_>>());
    let at = if other < peak { backward } else { forward };
    let mut order: Vec<usize> = (0..intervals.len()).collect();
    order.sort_by_key(|&i| (at[i], i));
    Placement { order, above: neighbours(intervals, &at) }
}

/// Starts and ends in the order of time: at each step, what ends before it, then what starts at it.
fn events(intervals: &[Interval], mut event: impl FnMut(usize, bool)) {
    let key = |&i: &usize| (intervals[i].first, usize::MAX - intervals[i].last, u64::MAX - intervals[i].size, i);
    let mut starts: Vec<usize> = (0..intervals.len()).collect();
    starts.sort_by_key(key);
    let mut ends: Vec<usize> = (0..intervals.len()).collect();
    ends.sort_by_key(|&i| (intervals[i].last, i));
    let mut ends = ends.into_iter().peekable();
    for i in starts {
        while let Some(dead) = ends.next_if(|&d| intervals[d].last < intervals[i].first) {
            event(dead, false);
        }
        event(i, true);
    }
}

/// Places and the peak: at each step long-lived ones first, each in the smallest hole that fits.
fn fit(intervals: &[Interval]) -> (Vec<u128>, u128) {
    let mut at = vec![0u128; intervals.len()];
    let (mut free, mut peak) = (Free::default(), 0);
    events(intervals, |i, starts| {
        if starts {
            at[i] = free.take(size_of(&intervals[i]));
            peak = free.top.max(peak);
        } else {
            free.give(at[i], size_of(&intervals[i]));
        }
    });
    (at, peak)
}

/// For each interval those that are directly below it at some time.
fn neighbours(intervals: &[Interval], at: &[u128]) -> Vec<Vec<usize>> {
    let mut above: Vec<Vec<usize>> = vec![Vec::new(); intervals.len()];
    let mut live: BTreeMap<u128, usize> = BTreeMap::new();
    events(intervals, |i, starts| {
        if !starts {
            live.remove(&at[i]);
        }
        let low = live.range(..at[i]).next_back().map(|(_, &low)| low);
        let high = live.range(at[i]..).next().map(|(_, &high)| high);
        if starts {
            above[i].extend(low);
            high.into_iter().for_each(|high| above[high].push(i));
            live.insert(at[i], i);
        } else if let (Some(low), Some(high)) = (low, high) {
            above[high].push(low);
        }
    });
    for lower in &mut above {
        lower.sort_unstable();
        lower.dedup();
    }
    above
}

/// Never 0: what lives at the same time has different places, so that there is an order.
fn size_of(interval: &Interval) -> u128 {
    u128::from(interval.size.max(1))
}
