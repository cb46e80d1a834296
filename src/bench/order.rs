//! In which order requests are sent and answered: how many later ones overtake a request.
//!
//! A request is overtaken by another one that is sent later and answered earlier. When a request is answered, those are
//! all later ones except the later ones that have no answer yet:
//!
//! ```text
//! sent      1 2 3 4 5 6 7        request 2 is answered now, after 3, 5 and 6
//! answered  x . x . x x .        7 - 2 = 5 later ones, of which 4 and 7 have no answer: 3 overtook request 2
//! ```
//!
//! The requests without an answer are counted in a Fenwick tree whose places are in the order of sending. When the
//! places are used up, those that nothing depends on any more are removed. So memory depends on the number of
//! connections and not on that of requests, and each request costs a logarithm of the number of connections.

/// The order of one load's requests.
#[derive(Debug)]
pub(super) struct Order {
    /// Number of requests that were sent; the number of the last one.
    sent: u64,
    /// Ascending by number.
    places: Vec<Place>,
    tree: Fenwick,
}

/// A request that is in flight, or has been.
#[derive(Debug, Clone, Copy)]
struct Place {
    number: u64,
    in_flight: bool,
    /// How many requests without an answer this place stands for: 1 for its own, if that is in flight or has failed,
    /// and 1 for each failed one whose place came next and was removed.
    unanswered: u64,
}

impl Order {
    /// The order of requests of which at most so many are in flight at a time.
    pub(super) fn new(most_in_flight: usize) -> Self {
        // Half of the places are free after removing, so that this is seldom.
        let places = 2 * most_in_flight.max(8);
        Self {
            sent: 0,
            places: Vec::with_capacity(places),
            tree: Fenwick::new(places),
        }
    }

    /// A request has been sent. Returns its number.
    pub(super) fn send(&mut self) -> u64 {
        if self.places.len() == self.tree.len() {
            self.remove_places();
        }
        self.sent += 1;
        self.push(Place {
            number: self.sent,
            in_flight: true,
            unanswered: 1,
        });
        self.sent
    }

    /// The request with this number has been answered. Returns how many later ones overtook it.
    pub(super) fn answer(&mut self, number: u64) -> u64 {
        let Some(index) = self.end(number) else {
            return 0;
        };
        // Its own one goes first; what the place stands for otherwise was sent later.
        self.places[index].unanswered -= 1;
        self.tree.subtract(index, 1);
        let unanswered = self.tree.sum_from(index);
        self.sent - number - unanswered
    }

    /// The request with this number has failed: it overtakes none.
    pub(super) fn fail(&mut self, number: u64) {
        self.end(number);
    }

    /// The request is no longer in flight. Returns its place.
    fn end(&mut self, number: u64) -> Option<usize> {
        let place = self
            .places
            .binary_search_by_key(&number, |place| place.number);
        debug_assert!(place.is_ok_and(|index| self.places[index].in_flight));
        let index = place.ok()?;
        self.places[index].in_flight = false;
        Some(index)
    }

    fn push(&mut self, place: Place) {
        self.tree.add(self.places.len(), place.unanswered);
        self.places.push(place);
    }

    /// Keeps the places of requests in flight. What another place stands for is only asked for by requests that were
    /// sent earlier, so the kept place before it takes that over.
    fn remove_places(&mut self) {
        let mut kept: Vec<Place> = Vec::with_capacity(self.tree.len());
        for place in self.places.drain(..) {
            if place.in_flight {
                kept.push(place);
            } else if let Some(earlier) = kept.last_mut() {
                earlier.unanswered += place.unanswered;
            }
        }
        self.tree.clear();
        for place in kept {
            self.push(place);
        }
        debug_assert!(self.places.len() < self.tree.len());
    }
}

/// Sums of the numbers in a row of places.
#[derive(Debug)]
struct Fenwick {
    /// The sum of as many places, up to this one, as the lowest bit set in the place's number (from 1) says.
    sums: Vec<u64>,
    total: u64,
}

impl Fenwick {
    fn new(places: usize) -> Self {
        Self {
            sums: vec![0; places],
            total: 0,
        }
    }

    fn len(&self) -> usize {
        self.sums.len()
    }

    fn clear(&mut self) {
        self.sums.fill(0);
        self.total = 0;
    }

    fn add(&mut self, index: usize, value: u64) {
        self.total += value;
        self.change(index, |sum| *sum += value);
    }

    fn subtract(&mut self, index: usize, value: u64) {
        self.total -= value;
        self.change(index, |sum| *sum -= value);
    }

    fn change(&mut self, index: usize, change: impl Fn(&mut u64)) {
        let mut place = index + 1;
        while place <= self.sums.len() {
            change(&mut self.sums[place - 1]);
            place += lowest_bit(place);
        }
    }

    /// The sum of the places from this one on.
    fn sum_from(&self, index: usize) -> u64 {
        let mut before = 0;
        let mut place = index;
        while place > 0 {
            before += self.sums[place - 1];
            place -= lowest_bit(place);
        }
        self.total - before
    }
}

fn lowest_bit(number: usize) -> usize {
    number & number.wrapping_neg()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_answered_in_turn_overtake_none() {
        let mut order = Order::new(4);
        for _ in 0..1000 {
            let numbers = [(); 4].map(|()| order.send());
            assert!(numbers.iter().all(|&number| order.answer(number) == 0));
        }
    }

    #[test]
    fn a_request_is_overtaken_by_later_ones_that_are_answered_earlier() {
        let mut order = Order::new(8);
        let numbers = [(); 7].map(|()| order.send());
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
        for (number, overtaken) in [(1, 0), (3, 0), (6, 0), (5, 1), (2, 3), (7, 0), (4, 3)] {
            assert_eq!(order.answer(number), overtaken, "request {number}");
        }
    }

    #[test]
    fn one_request_may_be_overtaken_by_many() {
        let mut order = Order::new(2);
        let first = order.send();
        for _ in 0..100_000 {
            let number = order.send();
            assert_eq!(order.answer(number), 0);
        }
        assert_eq!(order.answer(first), 100_000);
        assert!(order.places.capacity() < 100);
    }

    #[test]
    fn failed_requests_overtake_none() {
        let mut order = Order::new(2);
        let first = order.send();
        for _ in 0..1000 {
            let failed = order.send();
            order.fail(failed);
        }
        let later = order.send();
        assert_eq!(order.answer(later), 0);
        assert_eq!(order.answer(first), 1);
    }

    /// One event of a load; the requests in flight are counted from the oldest.
    #[derive(Debug, Clone)]
    enum Event {
        Send,
        Answer(prop::sample::Index),
        Fail(prop::sample::Index),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            5 => Just(Event::Send),
            4 => any::<prop::sample::Index>().prop_map(Event::Answer),
            1 => any::<prop::sample::Index>().prop_map(Event::Fail),
        ];
        prop::collection::vec(event, 0..400)
    }

    proptest! {
        #[test]
        fn it_counts_as_comparing_each_request_with_all_others_does(
            events in events(),
            most in 1usize..40,
        ) {
            let mut order = Order::new(most);
            let mut in_flight: Vec<u64> = Vec::new();
            let mut answered: Vec<u64> = Vec::new();
            for event in events {
                match event {
                    Event::Send if in_flight.len() < most => in_flight.push(order.send()),
                    Event::Answer(index) if !in_flight.is_empty() => {
                        let number = in_flight.remove(index.index(in_flight.len()));
                        let later = answered.iter().filter(|&&other| other > number);
                        prop_assert_eq!(order.answer(number), later.count() as u64);
                        answered.push(number);
                    }
                    Event::Fail(index) if !in_flight.is_empty() => {
                        order.fail(in_flight.remove(index.index(in_flight.len())));
                    }
                    _ => {}
                }
            }
        }
    }
}
