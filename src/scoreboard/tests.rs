use super::*;

fn scoreboard(capacity: u32) -> (Arc<Scoreboard>, Arc<Scoreboard>) {
    let (first, fd) = Scoreboard::create(capacity, 4).expect("memfd");
    let second = Scoreboard::open(&fd).expect("same layout");
    (Arc::new(first), Arc::new(second))
}

#[test]
fn slots_are_claimed_once_and_reused() {
    let (ours, theirs) = scoreboard(2);
    let first = ours.claim(11, 1, 1).expect("free");
    let second = theirs.claim(12, 1, 1).expect("free");
    assert!(ours.claim(13, 1, 1).is_none());
    assert_ne!(first.index, second.index);
    assert_eq!(ours.release(11), Some(Lost::default()));
    assert_eq!(ours.release(11), None);
    assert_eq!(
        theirs.claim(13, 2, 1).expect("free again").index,
        first.index
    );
    assert!(!ours.is_empty());
    assert!(ours.release(12).is_some() && ours.release(13).is_some());
    assert!(theirs.is_empty());
}

#[test]
fn idle_workers_are_those_of_serving_processes() {
    let (ours, theirs) = scoreboard(8);
    let slot = ours.claim(11, 1, 4).expect("free");
    assert_eq!(theirs.idle_workers(), 0);
    slot.set_serving();
    assert_eq!(theirs.idle_workers(), 4);
    slot.request_started();
    assert_eq!(theirs.idle_workers(), 3);
    slot.request_finished();
    assert_eq!(theirs.idle_workers(), 4);
    slot.set_draining();
    assert_eq!(theirs.idle_workers(), 0);
}

#[test]
fn death_settles_counters_and_keeps_totals() {
    let (ours, theirs) = scoreboard(8);
    let slot = theirs.claim(11, 1, 1).expect("free");
    let other = theirs.claim(12, 1, 1).expect("free");
    assert!(slot.add_connection(3) && slot.add_connection(3) && other.add_connection(3));
    assert!(!other.add_connection(3));
    assert!(slot.add_queued(Waits::OnOpen, 1) && !other.add_queued(Waits::OnOpen, 1));
    slot.request_started();
    slot.request_finished();
    slot.request_started();
    let lost = ours.release(11).expect("has a slot");
    assert_eq!(
        lost,
        Lost {
            running: 1,
            queued: 1,
            connections: 2,
            requests: 1
        }
    );
    let snapshot = ours.snapshot();
    assert_eq!(
        (snapshot.connections, snapshot.queued, snapshot.running),
        (1, 0, 0)
    );
    assert_eq!((snapshot.accepted, snapshot.requests), (4, 1));
    assert!(other.add_connection(3) && other.add_queued(Waits::OnOpen, 1));
}

#[test]
fn connection_that_is_handed_over_stays_counted() {
    let (ours, theirs) = scoreboard(8);
    let (from, to) = (
        ours.claim(11, 1, 1).expect("free"),
        theirs.claim(12, 1, 1).expect("free"),
    );
    assert!(from.add_connection(1));
    from.connection_handed_over();
    assert_eq!(ours.release(11).expect("has a slot").connections, 0);
    assert!(!to.add_connection(1));
    to.connection_taken_over();
    to.connection_closed();
    assert_eq!(
        (
            ours.snapshot().connections,
            to.cells().connections.load(Ordering::Relaxed)
        ),
        (0, 0)
    );
}

#[test]
fn connection_from_another_scoreboard_is_counted_anew() {
    let (old, _) = scoreboard(1);
    let (new, same) = scoreboard(8);
    assert_eq!(new.id(), same.id());
    assert_ne!(old.id(), new.id());
    let to = new.claim(12, 2, 1).expect("free");
    to.foreign_connection_taken_over();
    assert_eq!(new.snapshot().connections, 1);
    assert_eq!(new.snapshot().accepted, 0);
    to.connection_closed();
    assert_eq!(new.snapshot().connections, 0);
}

#[test]
fn successor_is_a_newer_generation_unless_the_pool_stops() {
    let (ours, theirs) = scoreboard(1);
    assert!(!theirs.has_successor(1));
    ours.set_serving_generation(1);
    assert!(!theirs.has_successor(1));
    ours.set_serving_generation(2);
    assert!(theirs.has_successor(1) && !theirs.has_successor(2));
    ours.set_stopping();
    assert!(!theirs.has_successor(1));
}

#[test]
fn memory_of_another_layout_is_refused() {
    let (scoreboard, fd) = Scoreboard::create(1, 1).expect("memfd");
    scoreboard
        .header()
        .layout
        .store(LAYOUT + 1, Ordering::Release);
    assert!(Scoreboard::open(&fd).is_err());
    assert!(ftruncate(&fd, 0).is_err(), "sealed");
}

#[test]
fn totals_of_dead_workers_are_kept() {
    let (ours, theirs) = scoreboard(2);
    let slot = theirs.claim(11, 1, 1).expect("free");
    let mut worker = slot.worker(0).expect("there is one");
    for _ in 0..2 {
        slot.request_started();
        worker.begin(Moment::from_micros(0), &RequestInfo::default());
    }
    worker.end(Moment::from_micros(30), 0, Duration::ZERO);
    worker.waited(Duration::from_micros(40));
    slot.request_finished();
    let before = ours.snapshot();
    assert_eq!((before.requests, before.requests_begun), (1, 2));
    ours.release(11).expect("has a slot");
    let after = ours.snapshot();
    assert_eq!((after.requests, after.requests_begun), (1, 2));
    assert_eq!(
        (&after.durations, &after.waits),
        (&before.durations, &before.waits)
    );
    assert_eq!(after.durations.count(), 1);
}

#[test]
fn most_active_workers_are_remembered_and_the_dead_do_not_count_twice() {
    let (ours, theirs) = scoreboard(3);
    let (first, second) = (
        theirs.claim(11, 1, 1).expect("free"),
        theirs.claim(12, 1, 1).expect("free"),
    );
    first.request_started();
    second.request_started();
    second.request_finished();
    assert_eq!(ours.snapshot().max_active, 2);
    ours.release(11).expect("has a slot");
    let third = theirs.claim(13, 1, 1).expect("free");
    second.request_started();
    third.request_started();
    assert_eq!(ours.snapshot().max_active, 2, "the first one is dead");
}

#[test]
fn listen_queue_is_what_waits_in_the_kernel_and_with_us() {
    let (ours, theirs) = scoreboard(1);
    let slot = theirs.claim(11, 1, 1).expect("free");
    ours.set_backlog(3, 511);
    assert!(slot.add_queued(Waits::OnOpen, 9) && slot.add_queued(Waits::OnOpen, 9));
    let snapshot = ours.snapshot();
    assert_eq!((snapshot.listen_queue(), snapshot.backlog_limit), (5, 511));
    slot.remove_queued(Waits::OnOpen);
    ours.set_backlog(0, 511);
    let snapshot = ours.snapshot();
    assert_eq!((snapshot.listen_queue(), snapshot.max_listen_queue), (1, 5));
}

#[test]
fn one_worker_a_second_is_to_read_opcache() {
    let (ours, theirs) = scoreboard(1);
    let slot = theirs.claim(11, 1, 1).expect("free");
    let at = Moment::from_micros;
    assert!(ours.snapshot().opcache.is_none());
    assert!(slot.is_opcache_due(at(5)), "never written");
    assert!(!slot.is_opcache_due(at(1_000_004)));
    assert!(slot.is_opcache_due(at(1_000_005)));
    slot.opcache_unread();
    assert!(slot.is_opcache_due(at(1_000_006)), "somebody else's turn");
    let figures = OpcacheFigures {
        used_memory: 1,
        manual_restarts: 13,
        ..OpcacheFigures::default()
    };
    slot.set_opcache(figures);
    assert_eq!(ours.snapshot().opcache, Some(figures));
}

#[test]
fn snapshot_does_not_wait_for_whoever_died_releasing_a_slot() {
    let (ours, theirs) = scoreboard(1);
    ours.header().releases_begun.fetch_add(1, Ordering::Relaxed);
    theirs.count_slow_request();
    theirs.count_max_children_reached();
    let snapshot = theirs.snapshot();
    assert_eq!(
        (snapshot.slow_requests, snapshot.max_children_reached),
        (1, 1)
    );
}

/// Slots of processes that serve and are idle, of these generations, each with a lane of its own.
fn idle_slots(generations: &[u32]) -> (Arc<Scoreboard>, Vec<Slot>) {
    let capacity = u32::try_from(generations.len()).expect("few");
    let scoreboard = Arc::new(Scoreboard::create(capacity, 1).expect("memfd").0);
    let slots = generations.iter().zip(0..).map(|(generation, lane)| {
        let slot = scoreboard.claim(100 + lane, *generation, 1).expect("free");
        slot.set_serving();
        slot.set_lane(lane);
        slot.become_idle();
        slot
    });
    let slots = slots.collect();
    (scoreboard, slots)
}

#[test]
fn the_idle_sibling_with_the_fewest_connections_is_reserved_once() {
    let (_scoreboard, slots) = idle_slots(&[1, 1, 1, 2]);
    for slot in [0, 1, 1, 2, 2, 2] {
        assert!(slots[slot].add_connection(9));
    }
    let lane = |reservation: Option<Reservation>| reservation.map(|reservation| reservation.lane);
    assert_eq!(lane(slots[0].reserve_idle_below(2)), None);
    assert_eq!(lane(slots[0].reserve_idle()), Some(1));
    assert_eq!(lane(slots[0].reserve_idle()), Some(2));
    // One of another generation is no sibling, and it is none of its own.
    assert_eq!(lane(slots[0].reserve_idle()), None);
    assert!(!slots[0].has_idle_sibling() && slots[1].has_idle_sibling());
    assert!(slots[1].become_busy());
    assert!(!slots[1].become_busy());
    slots[1].become_idle();
    assert_eq!(lane(slots[0].reserve_idle()), Some(1));
}

#[test]
fn what_is_not_taken_is_taken_back_and_nothing_more_is_sent_there() {
    let (scoreboard, slots) = idle_slots(&[1, 1]);
    let reservation = slots[0].reserve_idle().expect("one is idle");
    assert!(slots[0].has_not_taken(&reservation));
    assert!(slots[0].reserve_idle().is_none());
    slots[1].become_idle();
    let reservation = slots[0].reserve_idle().expect("one is idle");
    slots[1].become_busy();
    assert!(!slots[0].has_not_taken(&reservation));
    slots[1].become_idle();
    let reservation = slots[0].reserve_idle().expect("one is idle");
    slots[0].cancel(&reservation);
    assert!(slots[0].has_idle_sibling());
    scoreboard.release(101);
    assert!(!slots[0].has_idle_sibling() && !slots[0].has_serving_sibling());
}

#[test]
fn each_generation_has_a_queue_of_its_own() {
    let (scoreboard, slots) = idle_slots(&[1, 1, 2]);
    slots[0].queue_grew();
    assert!(slots[1].has_queue() && !slots[2].has_queue());
    assert!(!slots[2].claim_queued());
    assert!(slots[1].claim_queued() && !slots[0].claim_queued());
    scoreboard.repair_queue(2);
    assert!(slots[2].has_queue());
    scoreboard.begin_queue(2);
    assert!(!slots[2].has_queue());
}
