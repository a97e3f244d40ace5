//! Splits groups, and with them their examples, into sides and folds.
//!
//! Groups stand in the order of a hash of their name and the seed: the order depends on neither
//! the machine nor the order of the data.

use std::collections::{BTreeMap, BTreeSet};

/// Where the examples go; indices of examples, in order.
pub(super) struct Split {
    /// Trained on.
    pub training: Vec<usize>,
    /// Of each example in `training`: its fold, all folds about as many groups.
    pub folds: Vec<usize>,
    /// Measured on.
    pub held_out: Vec<usize>,
}

/// Holds out the share `held_out` of the groups, `groups[i]` the group of example `i`, and deals
/// the others into `folds` folds.
pub(super) fn split(groups: &[&str], held_out: f64, folds: usize, seed: u64) -> Split {
    let mut order: Vec<&str> = distinct(groups).into_iter().collect();
    order.sort_by_key(|&group| (hash(group, seed), group));
    let held = (held_out * order.len() as f64).round() as usize;
    let numbered = order.iter().enumerate();
    let place: BTreeMap<&str, usize> = numbered.map(|(i, &g)| (g, i)).collect();
    let mut split = Split {
        training: Vec::new(),
        folds: Vec::new(),
        held_out: Vec::new(),
    };
    for (i, group) in groups.iter().enumerate() {
        match place.get(group) {
            Some(&place) if place >= held => {
                split.training.push(i);
                split.folds.push((place - held) % folds);
            }
            _ => split.held_out.push(i),
        }
    }
    split
}

/// The groups, each once.
pub(super) fn distinct<'a>(groups: &[&'a str]) -> BTreeSet<&'a str> {
    groups.iter().copied().collect()
}

/// FNV-1a over the seed and the name, then mixed: the last byte alone would hardly reach the
/// upper bits, by which names are ordered. Source of the mixing: SplitMix64.
fn hash(name: &str, seed: u64) -> u64 {
    let mut h: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in seed.to_le_bytes().into_iter().chain(name.bytes()) {
        h = (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}
