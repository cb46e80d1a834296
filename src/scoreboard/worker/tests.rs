use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::*;
use crate::scoreboard::Slot;

fn slot(threads: u32) -> (Arc<Scoreboard>, Slot) {
    let (scoreboard, fd) = Scoreboard::create(2, threads).expect("memfd");
    let other = Scoreboard::open(&fd).expect("same layout");
    let slot = Arc::new(scoreboard).claim(7, 1, threads).expect("free");
    slot.set_serving();
    (Arc::new(other), slot)
}

fn info(uri: &[u8]) -> RequestInfo<'_> {
    RequestInfo {
        request_uri: uri,
        query_string: b"a=1",
        request_method: b"POST",
        script_filename: b"/srv/a.php",
        auth_user: b"me",
        content_length: 12,
    }
}

#[test]
fn reader_sees_a_request_from_its_begin_to_its_end() {
    let (reader, slot) = slot(2);
    let mut worker = slot.worker(1).expect("there are two");
    let at = |microseconds| Moment::from_micros(microseconds);
    worker.accepting(at(1_000));
    let idle = reader.full_snapshot();
    assert_eq!(idle.workers.len(), 1, "the other has not waited yet");
    assert_eq!(
        (idle.workers[0].number, idle.workers[0].stage, idle.idle),
        (1, Some(Stage::Accepting), 2)
    );

    worker.begin(at(5_000), &info(b"/a.php"));
    worker.waited(Duration::from_micros(70));
    let entry = reader.request_of(1).expect("in range");
    assert_eq!(entry.stage, Some(Stage::Executing));
    assert_eq!(entry.request_uri, b"/a.php");
    assert_eq!(entry.query_string, b"a=1");
    assert_eq!(entry.request_method, b"POST");
    assert_eq!(entry.script_filename, b"/srv/a.php");
    assert_eq!(entry.auth_user, b"me");
    assert_eq!(entry.content_length, 12);
    assert_eq!(entry.duration_at(at(9_000)), Duration::from_millis(4));

    worker.end(at(15_000), 2 << 20, Duration::from_millis(5));
    worker.accepting(at(16_000));
    let entry = reader.request_of(1).expect("in range");
    assert_eq!(entry.duration_at(at(90_000)), Duration::from_millis(10));
    assert!((entry.cpu_percent() - 50.0).abs() < 0.001);
    let snapshot = reader.snapshot();
    assert_eq!(snapshot.memory_peak, 2 << 20);
    assert_eq!(snapshot.workers[0].requests, 1);
    assert_eq!(
        (snapshot.durations.count(), snapshot.durations.sum()),
        (1, Duration::from_millis(10))
    );
    assert_eq!(snapshot.waits.sum(), Duration::from_micros(70));
    assert!(reader.request_of(4).is_none() && slot.worker(2).is_none());
}

#[test]
fn long_text_is_cut_and_short_text_leaves_nothing_of_it() {
    let (reader, slot) = slot(1);
    let mut worker = slot.worker(0).expect("there is one");
    worker.begin(Moment::now(), &info(&[b'x'; 4_000]));
    let entry = reader.request_of(0).expect("in range");
    assert_eq!(entry.request_uri, [b'x'; 127], "as much as php-fpm keeps");
    worker.begin(Moment::now(), &info(b"/"));
    assert_eq!(reader.request_of(0).expect("in range").request_uri, b"/");
}

#[test]
fn writer_killed_in_the_middle_leaves_a_readable_entry() {
    let (reader, slot) = slot(1);
    let mut worker = slot.worker(0).expect("there is one");
    worker.begin(Moment::now(), &info(b"/before"));
    worker.cells().sequence.fetch_add(1, Ordering::Relaxed);
    worker
        .cells()
        .record
        .request_uri
        .length
        .store(u64::MAX, Ordering::Relaxed);
    let torn = reader.full_snapshot();
    let request = torn.workers[0].request.as_ref().expect("full");
    assert_eq!(request.request_uri.len(), 127, "whatever it says");

    reader.release(7).expect("has a slot");
    assert!(reader.full_snapshot().workers.is_empty());
    let next = Arc::clone(&reader).claim(8, 2, 1).expect("free");
    let mut worker = next.worker(0).expect("there is one");
    worker.begin(Moment::now(), &info(b"/after"));
    let entry = reader.request_of(0).expect("in range");
    assert_eq!(
        (entry.request_uri, entry.stage),
        (b"/after".to_vec(), Some(Stage::Executing))
    );
    assert_eq!(worker.cells().sequence.load(Ordering::Relaxed) & 1, 0);
}

#[test]
fn reader_never_sees_half_of_two_requests() {
    let (reader, slot) = slot(1);
    let mut worker = slot.worker(0).expect("there is one");
    worker.begin(Moment::from_micros(0), &info(&[0; 99]));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0_u64.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let uri = [u8::try_from(round % 251).expect("less than 256"); 99];
                worker.begin(Moment::from_micros(round % 251), &info(&uri));
            }
        });
        let mut torn = 0;
        for _ in 0..20_000 {
            if let Some(entry) = reader.worker_cells()[0].try_read() {
                let number = entry.accepted.as_micros();
                let uri = [u8::try_from(number).expect("less than 256"); 99];
                torn += usize::from(entry.request_uri != uri);
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(torn, 0);
    });
}
