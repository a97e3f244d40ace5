//! The controller's memory: O(τ·d), whatever the number of candidates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use aisp_llama::control::{Scored, WeightedMean, WeightedOptions};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// Counts the bytes in use.
struct Counting;

// SAFETY: everything is handed to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Peak bytes of two iterations at τ = 512 and d = 576 (SmolLM2-135M).
fn peak(candidates: u32) -> usize {
    let (horizon, width) = (512, 576);
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let mut aisp = WeightedMean::new(WeightedOptions::new(horizon, width, 0.5, 1)).unwrap();
    let mut row = vec![0.0; width];
    for iteration in 0..2 {
        for candidate in 0..candidates {
            for position in 0..horizon {
                row.fill(0.0);
                aisp.perturb(iteration, candidate, position, &mut row);
            }
        }
        let scored: Vec<Scored> = (0..candidates)
            .map(|candidate| Scored {
                candidate,
                reward: f64::from(candidate % 7),
                length: horizon,
            })
            .collect();
        aisp.update(iteration, &scored);
    }
    PEAK.load(Ordering::Relaxed) - before
}

#[test]
fn the_controller_stays_below_ten_megabytes_whatever_the_samples() {
    let (few, many) = (peak(4), peak(32));
    println!("controller at tau 512, d 576: {few} bytes with 4 candidates, {many} with 32");
    assert!(many < 10_000_000, "{many}");
    // Storing the perturbations of 28 more candidates would take 33 MB.
    assert!(many < few + 100_000, "{few} {many}");
}
