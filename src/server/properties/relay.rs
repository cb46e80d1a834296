//! An answer that a sibling process makes reaches the client under the request's own id, and whatever the sibling does,
//! the request ends once.

use std::io::Write;

use super::*;
use crate::fastcgi::properties::any_answers;
use crate::server::exchange::Exchange;
use crate::server::relay::{Progress, Relay};

const ID: u16 = 0x0203;

pub(super) fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut world = World::new(&mut choices);
    let shape = choices.byte();
    let wire = if shape & 1 == 0 {
        choices.take(usize::MAX).to_vec()
    } else {
        any_answers(&mut choices)
    };
    let exchange = Arc::new(Exchange::new(Arc::clone(world.connection.output()), ID));
    let (mut relay, theirs) = Relay::new(Arc::clone(&exchange), TOKEN).expect("socketpair");
    let mut sibling = UnixStream::from(theirs);

    let mut scratch = [0; 4096];
    let mut progress = Progress::Open;
    let mut seen = Vec::new();
    let mut start = 0;
    while progress == Progress::Open && start < wire.len() {
        let end = world
            .cutter
            .piece(start, wire.len())
            .min(start + scratch.len());
        sibling
            .write_all(&wire[start..end])
            .expect("room for a piece");
        start = end;
        progress = relay.read(&mut scratch);
        seen.extend(world.read());
    }
    drop(sibling);
    if progress == Progress::Open {
        assert!(!exchange.is_ended());
        progress = relay.read(&mut scratch);
        assert_eq!(progress, Progress::Lost);
    }
    if progress == Progress::Lost {
        assert!(!exchange.is_ended());
        // The connection has other requests.
        relay.end_lost(false);
    }
    assert!(exchange.is_ended());
    seen.extend(world.read());

    let (sent, status) = match answers(&mut wire.as_slice()) {
        Ok(sent) | Err((sent, _)) => until_end(sent),
    };
    assert_eq!(progress == Progress::Done, status.is_some());
    for answer in &seen {
        match answer {
            Answer::Stdout(id, _) | Answer::Stderr(id, _) | Answer::End(id, ..) => {
                assert_eq!(*id, ID);
            }
            other => panic!("{other:?} is not the client's"),
        }
    }
    let ends = seen
        .iter()
        .filter(|answer| matches!(answer, Answer::End(..)));
    assert_eq!(ends.count(), 1);
    let (received, end) = until_end(seen);
    assert_eq!(end, Some(status.unwrap_or(ProtocolStatus::RequestComplete)));
    assert_eq!(received, sent);
}

/// Stdout and stderr before the first end, and how that end was.
fn until_end(answers: Vec<Answer>) -> ([Vec<u8>; 2], Option<ProtocolStatus>) {
    let mut streams = [Vec::new(), Vec::new()];
    let mut status = None;
    for answer in answers {
        match answer {
            Answer::Stdout(_, data) if status.is_none() => streams[0].extend(data),
            Answer::Stderr(_, data) if status.is_none() => streams[1].extend(data),
            Answer::End(_, _, end) if status.is_none() => status = Some(end),
            _ => {}
        }
    }
    (streams, status)
}
