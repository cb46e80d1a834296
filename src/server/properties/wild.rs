//! Any records, answered at any time: no request is answered twice, none that was started is left unanswered, the clock
//! runs while a body is held for nobody, and nothing stays behind.

use std::collections::HashMap;

use super::*;
use crate::fastcgi::properties::any_records;
use crate::request::ResponseSink;

pub(super) fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut world = World::new(&mut choices);
    let as_it_is = choices.byte() & 1 == 0;
    let mut running: Vec<FastcgiSink<NoAccount>> = Vec::new();
    let mut answered = 0;
    let mut wire = Vec::new();
    let mut seen = Vec::new();
    while !choices.is_empty() {
        let step = choices.byte();
        match step & 7 {
            // Start what is ready.
            0 if !world.ready.is_empty() => {
                let job = world
                    .ready
                    .remove(usize::from(step >> 3) % world.ready.len());
                running.push(FastcgiSink::new(job.exchange, NoAccount));
            }
            // Write for one of those that run, or end it.
            1 if !running.is_empty() => {
                let index = usize::from(step >> 3) % running.len();
                if choices.byte() & 1 == 0 {
                    // The client may have aborted it.
                    let _ = running[index].write(b"page");
                    let _ = running[index].flush();
                } else {
                    drop(running.swap_remove(index));
                    answered += 1;
                }
            }
            2 => {
                answered += world.drop_gone();
                seen.extend(world.read());
                world.hand_over();
            }
            _ => {
                let length = usize::from(choices.byte());
                let bytes = choices.take(length);
                let bytes = if as_it_is {
                    bytes.to_vec()
                } else {
                    any_records(&mut Choices::new(bytes))
                };
                wire.extend_from_slice(&bytes);
                if world.receive(&bytes).is_err() {
                    break;
                }
                if world.connection.is_quiet() && world.connection.held() > 0 {
                    assert!(world.connection.deadline().is_some());
                }
            }
        }
        seen.extend(world.read());
        world.connection.reap();
        if world.connection.is_done() {
            assert!(running.is_empty() && world.ready.is_empty());
            break;
        }
    }
    answered += running.len() + world.ready.len();
    seen.extend(world.leave(running));

    let mut ends: HashMap<u16, usize> = HashMap::new();
    for answer in &seen {
        if let Answer::End(id, ..) = answer {
            *ends.entry(*id).or_default() += 1;
        }
    }
    let begins = begins(&wire);
    for (id, count) in &ends {
        assert!(
            Some(count) <= begins.get(id),
            "request {id} ended {count} times"
        );
    }
    assert!(ends.values().sum::<usize>() >= answered);
}

/// How often each request is begun in these bytes.
fn begins(mut wire: &[u8]) -> HashMap<u16, usize> {
    let mut counts = HashMap::new();
    while let Some((&[_, kind, id1, id0, length1, length0, padding, _], rest)) =
        wire.split_first_chunk()
    {
        if kind == 1 {
            *counts.entry(u16::from_be_bytes([id1, id0])).or_default() += 1;
        }
        let length = usize::from(u16::from_be_bytes([length1, length0])) + usize::from(padding);
        wire = rest.get(length..).unwrap_or_default();
    }
    counts
}
