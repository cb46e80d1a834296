//! One PHP worker's entry: what it runs, for the status page, the slow log and the time limits.
//!
//! The PHP thread writes, any process reads. An entry is a sequence number and words; the number is odd while the writer
//! changes words, and a reader that saw it odd, or change, reads again (a seqlock). All of it is relaxed atomics between two
//! fences: whatever a reader sees is some bytes, never undefined. A reader gives up asking after a while and takes what it
//! finds: the writer may be stopped, or dead and not yet reaped, in the middle of a change.
//!
//! All that is written for one request (begin, wait, end, idle again, and the slot's counters) takes about 55 ns.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::thread::yield_now;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::Scoreboard;
use super::histogram::{Histogram, add_alone};

/// What a PHP worker does; php-fpm's request stages, with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// Waits for a request.
    Accepting = 1,
    /// Reads a request's variables.
    ReadingHeaders = 2,
    /// Knows the variables, and looks for the script.
    Info = 3,
    /// Runs the script.
    Executing = 4,
    /// The script has ended, its answer is being sent.
    End = 5,
    /// The answer is sent, PHP cleans up; or it goes on after `fastcgi_finish_request()`.
    Finished = 6,
}

impl Stage {
    /// All stages, in their order.
    pub(crate) const ALL: [Self; 6] = [
        Self::Accepting,
        Self::ReadingHeaders,
        Self::Info,
        Self::Executing,
        Self::End,
        Self::Finished,
    ];

    /// The name on the status page.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Accepting => "Idle",
            Self::ReadingHeaders => "Reading headers",
            Self::Info => "Getting request information",
            Self::Executing => "Running",
            Self::End => "Ending",
            Self::Finished => "Finishing",
        }
    }

    fn from_word(word: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| *stage as u64 == word)
    }
}

/// A moment on the clock that all processes of a machine share and nobody sets (CLOCK_MONOTONIC), in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    /// Now.
    pub(crate) fn now() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
        Self(seconds * 1_000_000 + nanoseconds / 1_000)
    }

    /// From microseconds of that clock.
    pub(crate) const fn from_micros(microseconds: u64) -> Self {
        Self(microseconds)
    }

    /// Microseconds of that clock.
    pub(crate) const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was at this moment; zero if it was later.
    pub(crate) const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// This moment, so much later.
    pub(crate) fn after(self, by: Duration) -> Self {
        let by = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(by))
    }

    /// This moment, so much earlier.
    pub(crate) fn before(self, by: Duration) -> Self {
        let by = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(by))
    }
}

/// What the scoreboard keeps of a request's variables. Each is cut to what php-fpm has room for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RequestInfo<'r> {
    /// `SG(request_info).request_uri`: `SCRIPT_NAME`, without the query.
    pub(crate) request_uri: &'r [u8],
    /// `QUERY_STRING`
    pub(crate) query_string: &'r [u8],
    /// `REQUEST_METHOD`
    pub(crate) request_method: &'r [u8],
    /// The script's file; empty if there is none.
    pub(crate) script_filename: &'r [u8],
    /// The user of HTTP's own authentication, or empty.
    pub(crate) auth_user: &'r [u8],
    /// `CONTENT_LENGTH`
    pub(crate) content_length: u64,
}

/// What a reader sees of a worker's request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestEntry {
    /// None before the worker has waited for its first request.
    pub(crate) stage: Option<Stage>,
    /// When the stage began.
    pub(crate) stage_since: Moment,
    /// When the request in hand, or the last one, began.
    pub(crate) accepted: Moment,
    /// How long the last request took.
    pub(crate) duration: Duration,
    /// CPU time of the last request, if it was measured.
    pub(crate) cpu: Duration,
    /// Memory peak of the last request, in bytes.
    pub(crate) memory: u64,
    /// `CONTENT_LENGTH`
    pub(crate) content_length: u64,
    /// See [`RequestInfo`].
    pub(crate) request_uri: Vec<u8>,
    /// As above.
    pub(crate) query_string: Vec<u8>,
    /// As above.
    pub(crate) request_method: Vec<u8>,
    /// As above.
    pub(crate) script_filename: Vec<u8>,
    /// As above.
    pub(crate) auth_user: Vec<u8>,
}

impl RequestEntry {
    /// CPU time of the last request in percent of its duration.
    pub(crate) fn cpu_percent(&self) -> f64 {
        if self.duration.is_zero() {
            return 0.0;
        }
        self.cpu.as_secs_f64() / self.duration.as_secs_f64() * 100.0
    }

    /// How long the request in hand has taken by `now`, or the last one took.
    pub(crate) fn duration_at(&self, now: Moment) -> Duration {
        match self.stage {
            Some(Stage::Accepting) | None => self.duration,
            Some(_) => now.since(self.accepted),
        }
    }
}

/// A PHP worker's own entry. Its thread alone has it, which is what lets it write without locks.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(super) scoreboard: Arc<Scoreboard>,
    pub(super) index: usize,
}

impl Worker {
    /// The worker waits for a request.
    pub(crate) fn accepting(&mut self, now: Moment) {
        self.stage(Stage::Accepting, now);
    }

    /// The worker has ended: its entry is free for another.
    pub(crate) fn gone(&mut self) {
        let cells = self.cells();
        cells.change(Record::clear);
        set(&cells.requests, 0);
    }

    /// A request begins that came complete: its variables are known. `accepted` is when the worker took it.
    pub(crate) fn begin(&mut self, accepted: Moment, info: &RequestInfo<'_>) {
        let cells = self.cells();
        cells.change(|record| record.begin(accepted, Stage::Executing, info));
        add_alone(&cells.requests, 1);
    }

    /// The request goes on to another stage.
    pub(crate) fn stage(&mut self, stage: Stage, now: Moment) {
        self.cells().change(|record| record.stage(stage, now));
    }

    /// php-fpm's `fpm_request_end`: the answer is sent. `memory` is PHP's peak, `cpu` what the request used, zero where
    /// nobody [asks](Self::measures_cpu).
    pub(crate) fn end(&mut self, now: Moment, memory: u64, cpu: Duration) {
        let cells = self.cells();
        let accepted = Moment(cells.record.accepted.load(Ordering::Relaxed));
        let duration = now.since(accepted);
        cells.change(|record| {
            record.stage(Stage::Finished, now);
            set(&record.duration, micros(duration));
            set(&record.cpu, micros(cpu));
            set(&record.memory, memory);
        });
        cells.durations.record(duration);
        let peak = &self.scoreboard.header().memory_peak;
        if memory > peak.load(Ordering::Relaxed) {
            peak.fetch_max(memory, Ordering::Relaxed);
        }
    }

    /// Counts how long a request has waited, from its last variable to the worker.
    pub(crate) fn waited(&mut self, time: Duration) {
        self.cells().waits.record(time);
    }

    /// Whether CPU time is wanted: two more system calls for each request.
    pub(crate) fn measures_cpu(&self) -> bool {
        self.scoreboard
            .header()
            .measures_cpu
            .load(Ordering::Relaxed)
            != 0
    }

    fn cells(&self) -> &WorkerCells {
        &self.scoreboard.worker_cells()[self.index]
    }
}

/// One worker's part of the memory.
#[repr(C, align(128))]
pub(super) struct WorkerCells {
    sequence: AtomicU64,
    /// Requests begun; of this process only, so it has one writer and needs no sequence.
    requests: AtomicU64,
    record: Record,
    durations: Histogram,
    waits: Histogram,
}

/// What the sequence number guards.
#[repr(C)]
struct Record {
    stage: AtomicU64,
    stage_since: AtomicU64,
    accepted: AtomicU64,
    duration: AtomicU64,
    cpu: AtomicU64,
    memory: AtomicU64,
    content_length: AtomicU64,
    // As big as in php-fpm's fpm_scoreboard_proc_s, whose last byte is NUL.
    request_uri: Text<16>,
    query_string: Text<64>,
    request_method: Text<2>,
    script_filename: Text<32>,
    auth_user: Text<4>,
}

/// Up to `8 * WORDS - 1` bytes.
#[repr(C)]
struct Text<const WORDS: usize> {
    length: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl<const WORDS: usize> Text<WORDS> {
    const ROOM: usize = 8 * WORDS - 1;

    fn set(&self, text: &[u8]) {
        let text = &text[..text.len().min(Self::ROOM)];
        set(&self.length, text.len() as u64);
        // Whole words first: a copy whose length the compiler knows is one instruction.
        let (whole, rest) = text.as_chunks::<8>();
        for (word, bytes) in self.words.iter().zip(whole) {
            set(word, u64::from_ne_bytes(*bytes));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            set(&self.words[whole.len()], u64::from_ne_bytes(last));
        }
    }

    fn get(&self) -> Vec<u8> {
        let length = usize::try_from(get(&self.length)).map_or(0, |length| length.min(Self::ROOM));
        let mut text = Vec::with_capacity(length + 8);
        for word in &self.words[..length.div_ceil(8)] {
            text.extend_from_slice(&get(word).to_ne_bytes());
        }
        text.truncate(length);
        text
    }
}

impl Record {
    fn begin(&self, accepted: Moment, stage: Stage, info: &RequestInfo<'_>) {
        self.stage(stage, accepted);
        set(&self.accepted, accepted.0);
        set(&self.content_length, info.content_length);
        self.request_uri.set(info.request_uri);
        self.query_string.set(info.query_string);
        self.request_method.set(info.request_method);
        self.script_filename.set(info.script_filename);
        self.auth_user.set(info.auth_user);
    }

    fn stage(&self, stage: Stage, now: Moment) {
        set(&self.stage, stage as u64);
        set(&self.stage_since, now.0);
    }

    fn read(&self) -> RequestEntry {
        RequestEntry {
            stage: Stage::from_word(get(&self.stage)),
            stage_since: Moment(get(&self.stage_since)),
            accepted: Moment(get(&self.accepted)),
            duration: Duration::from_micros(get(&self.duration)),
            cpu: Duration::from_micros(get(&self.cpu)),
            memory: get(&self.memory),
            content_length: get(&self.content_length),
            request_uri: self.request_uri.get(),
            query_string: self.query_string.get(),
            request_method: self.request_method.get(),
            script_filename: self.script_filename.get(),
            auth_user: self.auth_user.get(),
        }
    }

    fn clear(&self) {
        let words = [
            &self.stage,
            &self.stage_since,
            &self.accepted,
            &self.duration,
            &self.cpu,
            &self.memory,
            &self.content_length,
            &self.request_uri.length,
            &self.query_string.length,
            &self.request_method.length,
            &self.script_filename.length,
            &self.auth_user.length,
        ];
        for word in words {
            set(word, 0);
        }
    }
}

impl WorkerCells {
    /// Changes the record. Only one thread at a time may.
    fn change(&self, change: impl FnOnce(&Record)) {
        let sequence = self.sequence.load(Ordering::Relaxed) | 1;
        set(&self.sequence, sequence);
        fence(Ordering::Release);
        change(&self.record);
        self.sequence
            .store(sequence.wrapping_add(1), Ordering::Release);
    }

    /// The record as its writer left it, as long as there is a writer that leaves it alone.
    pub(super) fn read(&self) -> RequestEntry {
        for attempt in 0..READ_ATTEMPTS {
            if let Some(entry) = self.try_read() {
                return entry;
            }
            if attempt < SPINS {
                spin_loop();
            } else {
                // The writer may be waiting for this processor.
                yield_now();
            }
        }
        self.record.read()
    }

    /// The record, unless it changes right now.
    fn try_read(&self) -> Option<RequestEntry> {
        let before = self.sequence.load(Ordering::Acquire);
        if before & 1 != 0 {
            return None;
        }
        let entry = self.record.read();
        fence(Ordering::Acquire);
        (self.sequence.load(Ordering::Relaxed) == before).then_some(entry)
    }

    /// The stage alone, which is one word.
    pub(super) fn stage(&self) -> Option<Stage> {
        Stage::from_word(get(&self.record.stage))
    }

    /// Requests begun.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn durations(&self) -> &Histogram {
        &self.durations
    }

    pub(super) fn waits(&self) -> &Histogram {
        &self.waits
    }

    /// Forgets a dead worker, and moves its totals to the pool's. Whatever it was in the middle of, the record can be read
    /// afterwards.
    pub(super) fn settle(&self, durations: &Histogram, waits: &Histogram) {
        self.change(Record::clear);
        self.requests.store(0, Ordering::Relaxed);
        self.durations.move_to(durations);
        self.waits.move_to(waits);
    }
}

fn set(word: &AtomicU64, value: u64) {
    word.store(value, Ordering::Relaxed);
}

fn get(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A writer needs a tenth of a microsecond, so this is generous.
const READ_ATTEMPTS: u32 = 200;
const SPINS: u32 = 50;

#[cfg(test)]
mod tests;
