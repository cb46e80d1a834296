//! OPcache's figures, which only a process that runs PHP can read, kept where every process can.

use std::sync::atomic::{AtomicU64, Ordering};

use super::worker::Moment;

/// What `opcache_get_status(false)` says, as far as it is worth a graph.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OpcacheFigures {
    /// `memory_usage.used_memory`, in bytes.
    pub(crate) used_memory: u64,
    /// `memory_usage.free_memory`, in bytes.
    pub(crate) free_memory: u64,
    /// `memory_usage.wasted_memory`, in bytes.
    pub(crate) wasted_memory: u64,
    /// `interned_strings_usage.used_memory`, in bytes.
    pub(crate) interned_strings_used_memory: u64,
    /// `interned_strings_usage.free_memory`, in bytes.
    pub(crate) interned_strings_free_memory: u64,
    /// `opcache_statistics.num_cached_scripts`
    pub(crate) cached_scripts: u64,
    /// `opcache_statistics.num_cached_keys`
    pub(crate) cached_keys: u64,
    /// `opcache_statistics.max_cached_keys`
    pub(crate) max_cached_keys: u64,
    /// `opcache_statistics.hits`
    pub(crate) hits: u64,
    /// `opcache_statistics.misses`
    pub(crate) misses: u64,
    /// `opcache_statistics.oom_restarts`
    pub(crate) oom_restarts: u64,
    /// `opcache_statistics.hash_restarts`
    pub(crate) hash_restarts: u64,
    /// `opcache_statistics.manual_restarts`
    pub(crate) manual_restarts: u64,
}

const FIGURES: usize = 13;

impl OpcacheFigures {
    fn to_words(self) -> [u64; FIGURES] {
        [
            self.used_memory,
            self.free_memory,
            self.wasted_memory,
            self.interned_strings_used_memory,
            self.interned_strings_free_memory,
            self.cached_scripts,
            self.cached_keys,
            self.max_cached_keys,
            self.hits,
            self.misses,
            self.oom_restarts,
            self.hash_restarts,
            self.manual_restarts,
        ]
    }

    fn from_words(words: [u64; FIGURES]) -> Self {
        let [
            used_memory,
            free_memory,
            wasted_memory,
            interned_strings_used_memory,
            interned_strings_free_memory,
            cached_scripts,
            cached_keys,
            max_cached_keys,
            hits,
            misses,
            oom_restarts,
            hash_restarts,
            manual_restarts,
        ] = words;
        Self {
            used_memory,
            free_memory,
            wasted_memory,
            interned_strings_used_memory,
            interned_strings_free_memory,
            cached_scripts,
            cached_keys,
            max_cached_keys,
            hits,
            misses,
            oom_restarts,
            hash_restarts,
            manual_restarts,
        }
    }
}

/// The figures in shared memory. Each stands for itself, so a reader may see some of the last second and some of this.
#[repr(C)]
pub(super) struct OpcacheCells {
    /// When the last writer claimed its turn; 0 for never.
    turn: AtomicU64,
    /// The figures have been written once.
    written: AtomicU64,
    figures: [AtomicU64; FIGURES],
}

impl OpcacheCells {
    /// Whether it is the caller's turn to write: true for one of all workers, once a second.
    pub(super) fn take_turn(&self, now: Moment) -> bool {
        let last = self.turn.load(Ordering::Relaxed);
        let now = now.as_micros().max(1);
        (last == 0 || now.saturating_sub(last) >= INTERVAL)
            && self
                .turn
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Whoever took the turn has nothing to write: the next one may.
    pub(super) fn return_turn(&self) {
        self.turn.store(0, Ordering::Relaxed);
    }

    pub(super) fn write(&self, figures: OpcacheFigures) {
        for (cell, word) in self.figures.iter().zip(figures.to_words()) {
            cell.store(word, Ordering::Relaxed);
        }
        self.written.store(1, Ordering::Release);
    }

    pub(super) fn read(&self) -> Option<OpcacheFigures> {
        if self.written.load(Ordering::Acquire) == 0 {
            return None;
        }
        Some(OpcacheFigures::from_words(
            self.figures
                .each_ref()
                .map(|cell| cell.load(Ordering::Relaxed)),
        ))
    }
}

/// Microseconds between two writers' turns.
const INTERVAL: u64 = 1_000_000;
