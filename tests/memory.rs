//! The controllers' memory: O(τ·d) whatever the number of candidates, and bounded over a long search.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use std::sync::Mutex;

use aisp_llama::control::{
    Scored, Search, SearchOptions, TokenNats, Trial, WeightedMean, WeightedOptions,
};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// Held by the one test that counts.
static COUNTS: Mutex<()> = Mutex::new(());

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

/// Peak bytes of two iterations at τ = 512.
fn peak(candidates: u32, width: usize) -> usize {
    let horizon = 512;
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
    let _alone = COUNTS.lock();
    let (few, many) = (peak(4, 576), peak(32, 576));
    println!("controller at tau 512, d 576: {few} bytes with 4 candidates, {many} with 32");
    assert!(many < 10_000_000, "{many}");
    // Storing the perturbations of 28 more candidates would take 33 MB.
    assert!(many < few + 100_000, "{few} {many}");
}

/// Peak bytes of a search whose texts are all different, and as long as its horizon.
fn peak_of_search(iterations: u32, samples: u32, length: usize, width: usize) -> usize {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let mut search = Search::new(SearchOptions::new(length, width, 0.5, 1)).unwrap();
    for iteration in 0..iterations {
        drop(search.propose(samples));
        let trial = |candidate| {
            let text = (iteration * samples + candidate) as i32;
            let mut features = vec![0.0; width];
            features[text as usize % width] = 1.0;
            Trial {
                candidate,
                reward: f64::from(text % 7),
                tokens: (0..length as i32).map(|t| text + t).collect(),
                nats: vec![TokenNats::default(); length],
                features,
                ..Trial::default()
            }
        };
        search.update((0..samples).map(trial).collect());
    }
    PEAK.load(Ordering::Relaxed) - before
}

#[test]
fn the_controllers_stay_below_64_megabytes_on_long_answers_of_a_wide_model() {
    let _alone = COUNTS.lock();
    let (weighted, search) = (peak(32, 4096), peak_of_search(8, 32, 512, 4096));
    println!("at tau 512, d 4096, 32 candidates: {weighted} bytes weighted, {search} searched");
    assert!(weighted < 64_000_000, "{weighted}");
    assert!(search < 64_000_000, "{search}");
}

#[test]
fn a_search_forgets_the_features_of_texts_that_its_regression_no_longer_reads() {
    let _alone = COUNTS.lock();
    let (short, long) = (
        peak_of_search(1, 600, 8, 1024),
        peak_of_search(4, 600, 8, 1024),
    );
    // Those of 1,800 more texts would take 7.4 MB.
    assert!(long < short + 4_000_000, "{short} {long}");
}
